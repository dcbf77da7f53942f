"""What a confidential function answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cloister.envelope import Sealed
from cloister.errors import CloisterError, FunctionError, UnavailableError, error_from_code
from cloister.receipts import Receipt

__all__ = ["BatchReply", "Job", "Reply", "Results", "Token"]
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
        delivery_ids: The delivery that each row set off, if the function declares one.
    """

    values: list[Any] = field(repr=False)
    errors: Mapping[int, str]
    receipt: Receipt
    delivery_ids: Sequence[str | None] = ()

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> BatchReply:
        """Read the result of `function.invoke` on a batch function."""
        output = result["output"]
        return cls(
            values=[_typed(value, output) for value in result["values"]],
            errors={int(index): str(error["code"]) for index, error in result["errors"].items()},
            receipt=Receipt.from_json(result["receipt"]),
            delivery_ids=tuple(result.get("delivery_ids") or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An invocation that nobody waits for, as it was when it was asked after.

    Attributes:
        id: Names it.
        function: `name@digest`.
        state: `waiting`, `running`, `done`, `failed`, `cancelled` or `lost`.
        percent: How far it says it is.
        reply: Once it is done.
        error: Once it has failed, or was cancelled or lost.
    """

    id: str
    function: str
    state: str
    percent: int
    reply: Reply | BatchReply | None = field(default=None, repr=False)
    error: CloisterError | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state not in {"waiting", "running"}

    def result(self) -> Reply | BatchReply:
        """The reply.

        Raises:
            CloisterError: It has not ended, or not well; the error says how.
        """
        if self.reply is not None:
            return self.reply
        if self.error is not None:
            raise self.error
        raise UnavailableError("the job has not ended", hint="wait for it: client.wait(job)")

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> Job:
        """Read the result of `function.start`, `job.get` or `job.cancel`."""
        given, state = result.get("result"), str(result["state"])
        error = result.get("error")
        reply = None if given is None else (BatchReply if "values" in given else Reply).from_result(given)
        return cls(
            id=result["job"],
            function=result["function"],
            state=state,
            percent=result["percent"],
            reply=reply,
            error=error_from_code(error["code"], error["message"], hint=error["hint"])
            if error
            else _ENDS.get(state),
        )


_ENDS: Final = {
    "cancelled": FunctionError("the job was cancelled"),
    "lost": UnavailableError(
        "the job's host died while it ran, and it may have had effects outside",
        hint="look there, then start it again",
        retryable=False,
    ),
}


def _typed(value: Any, output: str) -> Any:
    if value is None:
        return None
    if output == "sealed":
        return Sealed(value)
    if output == "token":
        return Token(value)
    return value
