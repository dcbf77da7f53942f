"""How much each principal may have detokenized: what stops a walk through a space of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from cloister.errors import LimitError
from cloister_host.identity.caller import Caller
from cloister_host.store import Table, Tx
from cloister_host.tokenization.policies import Limits

__all__ = ["Budgets"]

_MINUTE: Final = 60
_DAY: Final = 86_400


class Spent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `token_budgets` row: tokens asked for in the minute and the day it names."""

    minute: int
    in_minute: int
    day: int
    in_day: int


BUDGETS: Final = Table("token_budgets", Spent, "budget")


class Budgets:
    """Counts in protected rows, so neither a restart nor another replica starts anew.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def spend(self, tx: Tx, caller: Caller, policy: str, limits: Limits, count: int) -> None:
        """Take `count` tokens, found or not, from the budget of whoever asks.

        A confidential function spends the budget of the principal it runs for. A clock that goes back
        opens no new window.

        Raises:
            LimitError: It would be more than the policy allows; then nothing is taken.
        """
        principal = caller.on_behalf_of or caller.principal
        row_id = f"{policy}|{principal}"
        row = tx.get(BUDGETS, caller.tenant, row_id)
        spent = row.record if row else Spent(minute=0, in_minute=0, day=0, in_day=0)
        now = int(self._clock())
        minute, day = max(now // _MINUTE, spent.minute), max(now // _DAY, spent.day)
        in_minute = count + (spent.in_minute if minute == spent.minute else 0)
        in_day = count + (spent.in_day if day == spent.day else 0)
        if in_minute > limits.per_minute:
            raise LimitError(
                f"this policy gives a principal {limits.per_minute:,} values a minute",
                hint="ask for fewer, or later",
                retryable=count <= limits.per_minute,
            )
        if in_day > limits.per_day:
            raise LimitError(
                f"this policy gives a principal {limits.per_day:,} values a day",
                hint="ask whoever manages the policy for a larger budget",
            )
        tx.put(
            BUDGETS,
            caller.tenant,
            row_id,
            Spent(minute=minute, in_minute=in_minute, day=day, in_day=in_day),
        )
