"""What a confidential function answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cloister.envelope import Sealed
from cloister.receipts import Receipt

__all__ = ["BatchReply", "Reply", "Results", "Token"]

T = TypeVar("T")


class Token(str):
    """A token: stands for a value that only the vault knows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Token(<hidden>)"


class Results(list[T]):
    """What the host gave for each item, in order, with the receipts of the calls it took.

    Attributes:
        receipts: Mostly one; a batch too large for one call has several.
    """

    def __init__(self, items: Iterable[T] = (), *, of: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(items)
        self.receipts = tuple(Receipt.from_json(result["receipt"]) for result in of if "receipt" in result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one invocation.

    Attributes:
        value: `Sealed`, `bool`, `Token`, or what else the function's output class lets out.
        receipt: Proof of which code produced it.
        delivery_id: The delivery it set off, if the function declares one.
    """

    value: Any = field(repr=False)
    receipt: Receipt
    delivery_id: str | None = None

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> Reply:
        """Read the result of `function.invoke`."""
        return cls(
            value=_typed(result["value"], result["output"]),
            receipt=Receipt.from_json(result["receipt"]),
            delivery_id=result.get("delivery_id"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReply:
    """The answer to a batch: one value a row, in order; `None` where the row has an error or was null.

    Attributes:
        values: As in `Reply`, one a row.
        errors: Error code by row index; a row that is not in it succeeded.
        receipt: One receipt for the batch.
    """

    values: list[Any] = field(repr=False)
    errors: Mapping[int, str]
    receipt: Receipt

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> BatchReply:
        """Read the result of `function.invoke` on a batch function."""
        output = result["output"]
        return cls(
            values=[_typed(value, output) for value in result["values"]],
            errors={int(index): str(error["code"]) for index, error in result["errors"].items()},
            receipt=Receipt.from_json(result["receipt"]),
        )


def _typed(value: Any, output: str) -> Any:
    if value is None:
        return None
    if output == "sealed":
        return Sealed(value)
    if output == "token":
        return Token(value)
    return value
