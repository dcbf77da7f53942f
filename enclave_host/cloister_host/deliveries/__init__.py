"""Deliveries: results on their way to another application, at least once, proven (PROTOCOL 9)."""
