"""What was done and what was refused, one entry each, in the transaction of the act (PROTOCOL 8)."""

from cloister_host.audit.audit import Audit, Event, Outcome
from cloister_host.audit.entry import leaf_hash

__all__ = ["Audit", "Event", "Outcome", "leaf_hash"]
