"""What `cloister function new` writes."""

from __future__ import annotations

from typing import Final

__all__ = ["FUNCTION", "TEST"]

FUNCTION: Final = '''\
"""Tell whether a card number can be one, without anybody outside the enclave seeing it."""

from typing import Annotated

from cloister.function import boolean, function, sealed


@function("NAME", output=boolean())
def IDENTIFIER(number: Annotated[str, sealed("cards", context=["customer"])]) -> bool:
    """Check the number's last digit (Luhn, ISO/IEC 7812-1 annex B)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(digits) > 11 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
'''

TEST: Final = """\
from function import IDENTIFIER


def test_a_number_with_the_right_last_digit() -> None:
    assert IDENTIFIER("4111 1111 1111 1111") is True


def test_a_number_with_a_wrong_last_digit() -> None:
    assert IDENTIFIER("4111 1111 1111 1112") is False
"""
