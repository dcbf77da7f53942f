"""What was done and what was refused: an entry each, in a log that nobody can rewrite (PROTOCOL 8)."""

from cloister_host.audit.audit import Audit, Event, Outcome, Recorded
from cloister_host.audit.log import Log

__all__ = ["Audit", "Event", "Log", "Outcome", "Recorded"]
