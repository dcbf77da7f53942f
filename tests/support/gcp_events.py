"""Recorded events of Google's, the headers of CloudEvents, and an enclave that writes down its calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloister.receipts import Receipt
from cloister.reply import Reply

__all__ = ["EVENTS", "Recorder", "cloud_event", "event"]

EVENTS = Path(__file__).parents[1] / "events" / "gcp"


def event(name: str) -> Any:
    """A fresh copy of a recorded event."""
    return json.loads((EVENTS / f"{name}.json").read_text())


def cloud_event(kind: str, source: str, **changes: str) -> dict[str, str]:
    """Headers of a CloudEvent in binary mode, as Eventarc sends it."""
    return {
        "ce-specversion": "1.0",
        "ce-id": "123451234512345",
        "ce-type": kind,
        "ce-source": source,
        "ce-time": "2020-01-02T12:34:56.789Z",
        "content-type": "application/json",
        **changes,
    }


class Recorder:
    """Answers each call with its number."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def invoke(self, function: str, /, **arguments: Any) -> Reply:
        self.calls.append({"function": function, **arguments})
        return Reply(value=len(self.calls), receipt=Receipt(id="r-1", token="a.b.c"))

    def invoke_batch(self, function: str, /, **arguments: Any) -> Any:
        raise AssertionError("nothing here calls a batch")

    @property
    def keys(self) -> list[Any]:
        """Idempotency keys, in order."""
        return [call["idempotency_key"] for call in self.calls]
