"""Check digits: Luhn (ISO/IEC 7812-1, annex B) and IBAN (ISO 13616, ISO/IEC 7064 MOD 97-10)."""

from __future__ import annotations

from typing import Final

__all__ = ["iban_check_digits", "iban_is_valid", "luhn_digit", "luhn_is_valid", "luhn_sum"]

_DOUBLED: Final = bytes.maketrans(b"0123456789", b"0246813579")
_HALVED: Final = "0516273849"
_ZERO: Final = ord("0")


def luhn_sum(digits: str) -> int:
    """The Luhn sum modulo 10; 0 for a number that passes."""
    raw = digits.encode("ascii")
    return (sum(raw[-1::-2]) + sum(raw[-2::-2].translate(_DOUBLED)) - _ZERO * len(raw)) % 10


def luhn_is_valid(digits: str) -> bool:
    """Whether `digits` is digits and passes the Luhn check."""
    return digits.isascii() and digits.isdigit() and luhn_sum(digits) == 0


def luhn_digit(digits: str, place: int, total: int) -> str:
    """The digit that, at `place`, gives `digits` the Luhn sum `total`; what stands there is ignored."""
    rest = luhn_sum(f"{digits[:place]}0{digits[place + 1 :]}")
    missing = (total - rest) % 10
    doubled = (len(digits) - place) % 2 == 0
    return _HALVED[missing] if doubled else str(missing)


def iban_check_digits(country: str, account: str) -> str:
    """The two check digits of an account number (BBAN, upper case) in a country."""
    return f"{98 - int(_numeric(f'{account}{country}00')) % 97:02}"


def iban_is_valid(iban: str) -> bool:
    """Whether the check digits of an IBAN without spaces, letters in upper case, are right."""
    check = iban[2:4]
    return check == iban_check_digits(iban[:2], iban[4:])


def _numeric(text: str) -> str:
    return "".join([str(int(symbol, 36)) for symbol in text])
