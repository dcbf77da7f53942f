"""Tenants share the host's own work: one asks for much, and the others do not feel it."""

from cloister_host.fairness.gate import Gate, Place, aside
from cloister_host.fairness.shares import Limits, Shares, Ticket

__all__ = ["Gate", "Limits", "Place", "Shares", "Ticket", "aside"]
