"""Calls from confidential functions to the outside: declared origins only, made by the host (PROTOCOL 10)."""

from cloister_host.egress.client import Credentials, Egress, EgressDoor, EgressRecord
from cloister_host.egress.settings import EgressSettings

__all__ = ["Credentials", "Egress", "EgressDoor", "EgressRecord", "EgressSettings"]
