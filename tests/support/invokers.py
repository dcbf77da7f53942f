"""What stands in for a client of the enclave: answers every call, and keeps what it was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloister.envelope import seal_to
from cloister.jose import generate_key
from cloister.receipts import Receipt
from cloister.reply import BatchReply, Reply

__all__ = ["OfflineSealer", "RecordedInvoker"]


@dataclass
class RecordedInvoker:
    """Answers every call with one value, and keeps the calls."""

    value: object = True
    error: Exception | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)

    def invoke(self, function, /, *, context=None, idempotency_key=None, purpose=None, **inputs):
        self.calls.append({"function": function, "context": context, "key": idempotency_key, **inputs})
        if self.error is not None:
            raise self.error
        return Reply(value=self.value, receipt=Receipt(id="r-1", token="a.b.c"))

    def invoke_batch(self, function, /, *, context=None, idempotency_key=None, **columns):
        self.calls.append({"function": function, "context": context, "key": idempotency_key, **columns})
        rows = len(next(iter(columns.values())))
        return BatchReply(values=[self.value] * rows, errors={}, receipt=Receipt(id="r-1", token="a.b.c"))

    @property
    def keys(self) -> list[str]:
        return [call["key"] for call in self.calls]


class OfflineSealer:
    """Seals offline, and keeps what it was asked for."""

    key = generate_key("HPKE-7-KE")

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def seal_many(self, values, *, key, contexts=None):
        self.calls.append((key, list(values), contexts))
        return [seal_to(value, self.key.public(), kid=f"{key}.1") for value in values]
