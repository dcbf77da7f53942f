from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cloister.envelope import Sealed, seal_to
from cloister.jose import generate_key
from cloister.receipts import Receipt
from cloister.reply import BatchReply, Reply


@dataclass
class RecordedInvoker:
    """Answers every call with one value, and keeps the calls."""

    value: object = True
    error: Exception | None = None
    calls: list[dict] = field(default_factory=list)

    def invoke(self, function, /, *, context=None, idempotency_key=None, **inputs):
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


@pytest.fixture
def invoker() -> RecordedInvoker:
    return RecordedInvoker()


@pytest.fixture(scope="session")
def sealed() -> Sealed:
    return seal_to("a history", generate_key("HPKE-7-KE").public(), kid="credit-histories.1")
