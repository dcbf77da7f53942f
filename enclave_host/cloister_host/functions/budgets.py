"""Answer budgets: how much may be asked of a function, by whom and about whom (PROTOCOL 11)."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from cloister.errors import LimitError
from cloister.function.limits import Budget
from cloister.jose import b64url_encode
from cloister_host.identity.caller import Caller
from cloister_host.store import Row, Table, Tx
from cloister_host.store.canonical import canonical, utf8

__all__ = ["AnswerBudgets", "Charge"]

_CHUNK: Final = 5000


class Spent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of an `answer_budgets` row: answers in the period that it names."""

    period: int
    answers: int


SPENT: Final = Table("answer_budgets", Spent, "budget")


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What an invocation took: answers by row, in the period by its number."""

    period: int
    answers: dict[str, int]


class AnswerBudgets:
    """Counts in protected rows, so neither a restart nor another replica starts anew.

    Rows are named by a keyed hash: the owner of the database learns no subject from them.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def charge(
        self, tx: Tx, caller: Caller, function: str, budget: Budget, subjects: Sequence[str]
    ) -> tuple[Charge, list[int]]:
        """Take an answer for each row; tells which rows are over their subject's budget and took nothing.

        Args:
            tx: The transaction that authorises the invocation.
            caller: Who asks.
            function: Name of the function, whatever its digest.
            budget: As declared.
            subjects: Whom each row is about; as many as there are rows, whatever they are if no budget
                per subject is declared.

        Raises:
            LimitError: The principal's budget does not cover the rows; nothing is taken.
        """
        period = int(self._clock()) // budget.period_seconds
        key = tx.derived_key(caller.tenant, "answer-budgets").reveal()
        wanted: Counter[str] = Counter()
        over: list[int] = []
        found: dict[str, Row[Spent]] = {}
        if budget.per_subject is not None:
            names = [_keyed(key, function, "subject", subject) for subject in subjects]
            found |= _read(tx, caller.tenant, sorted(set(names)))
            for index, name in enumerate(names):
                if _answers(found.get(name), period) + wanted[name] >= budget.per_subject:
                    over.append(index)
                else:
                    wanted[name] += 1
        if budget.per_principal is not None:
            name = _keyed(key, function, "principal", caller.principal)
            found |= _read(tx, caller.tenant, [name])
            count = len(subjects) - len(over)
            if _answers(found.get(name), period) + count > budget.per_principal:
                raise LimitError(
                    f"this function gives a principal {budget.per_principal:,} answers a {budget.period}",
                    hint=f"ask for fewer, or in the next {budget.period}",
                )
            wanted[name] += count
        charge = Charge(period=period, answers={name: count for name, count in wanted.items() if count})
        self._write(tx, caller.tenant, charge, found, sign=1)
        return charge, over

    def refund(self, tx: Tx, tenant: str, charge: Charge) -> None:
        """Give back what was taken for an invocation whose function never began to run."""
        self._write(tx, tenant, charge, _read(tx, tenant, sorted(charge.answers)), sign=-1)

    def _write(self, tx: Tx, tenant: str, charge: Charge, found: dict[str, Row[Spent]], *, sign: int) -> None:
        records = {}
        for name, count in charge.answers.items():
            row = found.get(name)
            # A clock that goes back opens no new period, and a refund that comes late changes none.
            period = max(charge.period, row.record.period if row else 0)
            if sign < 0 and period != charge.period:
                continue
            records[name] = Spent(period=period, answers=max(_answers(row, period) + sign * count, 0))
        tx.put_many(SPENT, tenant, records, over={name: found[name] for name in records if name in found})


def _answers(row: Row[Spent] | None, period: int) -> int:
    """Answers that count against a period; those of a later one do too."""
    return row.record.answers if row is not None and row.record.period >= period else 0


def _read(tx: Tx, tenant: str, names: Sequence[str]) -> dict[str, Row[Spent]]:
    found: dict[str, Row[Spent]] = {}
    for chunk in _chunks(names):
        found |= tx.get_many(SPENT, tenant, chunk)
    return found


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _CHUNK):
        yield names[start : start + _CHUNK]


def _keyed(key: bytes, *parts: str) -> str:
    for part in parts:
        utf8(part)
    return b64url_encode(hmac.digest(key, canonical(parts), "sha256"))
