"""The confidential function: take a sealed PIN, and hand the card application a token in its place.

The function returns the PIN as the record's `token`. What leaves is that field's declared class, a random
token of the policy `pins`, put in its place outside the sandbox and delivered together with the account.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final

from cloister.function import budget, deliver, function, record, sealed, text, token

__all__ = ["AccountNotUsable", "PinNotUsable", "PinTransfer", "pin_transfer"]

_PIN: Final = re.compile(r"[0-9]{4,12}")  # ISO 9564-1:2017, 8.1
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")


class PinNotUsable(ValueError):  # noqa: N818 - callers see the class name alone, so it says what is wrong
    """What was sealed is not a PIN of 4 to 12 digits."""


class AccountNotUsable(ValueError):  # noqa: N818 - as above
    """The account is not 1 to 32 letters, digits and hyphens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinTransfer:
    """What is delivered to the card application.

    Attributes:
        account: Whose PIN it is.
        token: The PIN inside the enclave, its token outside.
    """

    account: str
    token: str = field(repr=False)


@function(
    "pin-transfer",
    output=record(account=text(max_chars=32), token=token("pins")),
    deliver=deliver("${CARD_APP}", path="/api/pins"),
    # Each transfer makes a new token; nobody needs more of them for one account.
    budget=budget(subject="account", per_subject=100, per_principal=100_000, period="day"),
    raises=[AccountNotUsable, PinNotUsable],
)
def pin_transfer(pin: Annotated[str, sealed("pins", context=["account"])], account: str) -> PinTransfer:
    """Check the PIN and pass it on for tokenization.

    Raises:
        PinNotUsable: It is not 4 to 12 digits.
        AccountNotUsable: It cannot be an account.
    """
    if not _PIN.fullmatch(pin):
        raise PinNotUsable
    if not _ACCOUNT.fullmatch(account):
        raise AccountNotUsable
    return PinTransfer(account=account, token=pin)
