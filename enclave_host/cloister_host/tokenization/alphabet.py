"""Random tokens: fixed length, uniform over an alphabet."""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from typing import Final

from cloister.errors import ConfigurationError

__all__ = ["MIN_TOKENS", "TokenShape", "alphabet_of"]

# Fewer tokens than this are used up, and found by trying, too soon.
MIN_TOKENS: Final = 10**6
MAX_SYMBOLS: Final = 256
_BYTE: Final = 256

_NAMED: Final = {
    "digits": string.digits,
    "lowercase": string.ascii_lowercase,
    "uppercase": string.ascii_uppercase,
    "letters": string.ascii_letters,
    "alphanumeric": string.digits + string.ascii_letters,
    "hex": "0123456789abcdef",
}


def alphabet_of(text: str) -> str:
    """Return the characters of a named alphabet, or `text` itself if it is one.

    Raises:
        ConfigurationError: A character repeats, or cannot be seen.
    """
    alphabet = _NAMED.get(text, text)
    if len(set(alphabet)) != len(alphabet) or not 1 < len(alphabet) <= MAX_SYMBOLS:
        raise ConfigurationError(
            f"an alphabet has 2 to {MAX_SYMBOLS} different characters",
            hint=f"or is one of {', '.join(_NAMED)}",
        )
    if not alphabet.isprintable() or " " in alphabet or any("\ud800" <= c <= "\udfff" for c in alphabet):
        raise ConfigurationError("an alphabet has printable characters only, and no space")
    return alphabet


@dataclass(frozen=True, slots=True)
class TokenShape:
    """What the tokens of a policy look like."""

    alphabet: str
    length: int

    def __post_init__(self) -> None:
        if len(self.alphabet) ** self.length < MIN_TOKENS:
            raise ConfigurationError(
                f"{len(self.alphabet)} characters in {self.length} places make fewer than {MIN_TOKENS} tokens",
                hint="make the tokens longer, or the alphabet larger",
            )

    def draw(self, count: int) -> set[str]:
        """Draw tokens, each character uniform; at most `count`, since two may be the same."""
        symbols = len(self.alphabet)
        table = str.maketrans({index: self.alphabet[index % symbols] for index in range(_BYTE)})
        # Bytes past the last whole round of the alphabet would favour its first characters.
        uneven = bytes(range(_BYTE - _BYTE % symbols, _BYTE))
        characters = ""
        while len(characters) < count * self.length:
            raw = os.urandom(2 * (count * self.length - len(characters)))
            characters += raw.translate(None, uneven).decode("latin-1").translate(table)
        starts = range(0, count * self.length, self.length)
        return {characters[start : start + self.length] for start in starts}

    def fits(self, token: str) -> bool:
        """Whether a text has the form of these tokens."""
        return len(token) == self.length and all(character in self.alphabet for character in token)
