"""Who may do what: grants on (action, resource), denied by default."""

from cloister_host.policy.grants import Grants

__all__ = ["Grants"]
