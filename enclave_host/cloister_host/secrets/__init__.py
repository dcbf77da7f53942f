"""Secrets of a tenant: for the egress of its functions, and for nobody else unless that is granted."""

from cloister_host.secrets.service import Secrets, SecretValue

__all__ = ["SecretValue", "Secrets"]
