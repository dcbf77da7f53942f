"""Metrics without labels for tenants, functions or outcomes (PROTOCOL 6)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The host's counters, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "cloister_request_seconds",
            "Time from an opened request to its sealed reply.",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._unopened = Counter(
            "cloister_unopened_requests", "Requests answered in the clear.", registry=self._registry
        )
        self._attestations = Counter("cloister_attestations", "Challenges answered.", registry=self._registry)
        self._in_flight = Gauge(
            "cloister_requests_in_flight", "Requests being worked on.", registry=self._registry
        )

    def handled(self, seconds: float) -> None:
        """A request was opened and answered under seal."""
        self._seconds.observe(seconds)

    def unopened(self) -> None:
        """A request was answered in the clear."""
        self._unopened.inc()

    def attested(self) -> None:
        """A challenge was answered."""
        self._attestations.inc()

    @property
    def in_flight(self) -> Gauge:
        """How many requests are being worked on."""
        return self._in_flight

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
