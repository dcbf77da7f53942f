"""What a policy compiles to. Plans work on columns, are pure but for random draws, and keep order.

A value that does not fit the policy, or a token that cannot be one, is an error of its own item; the
rest of the column goes on.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from cloister.mask import View
from cloister_host.tokenization.ff1 import FF1, MIN_DOMAIN
from cloister_host.tokenization.formats import DIGITS, Format
from cloister_host.tokenization.shapes import LUHN_TOTAL, Luhn, Shape

__all__ = [
    "BAD_VALUE",
    "UNOPENED",
    "Column",
    "Ff1Plan",
    "HashPlan",
    "Plan",
    "RedactPlan",
    "TokenForm",
    "VaultPlan",
]

ItemError: TypeAlias = Literal["format", "domain", "open"]
BAD_VALUE: Final[ItemError] = "format"  # not of the policy's type
TOO_SMALL: Final[ItemError] = "domain"  # of the type, but with too few symbols to be safe
UNOPENED: Final[ItemError] = "open"  # one error for whatever is wrong with a token

_HASH_LABEL: Final = b"cloister.token.hash.v1\0"
_MIN_DRAWS: Final = 10_000  # vault tokens for each way the kept symbols may read


@dataclass(slots=True)
class Column:
    """Results in the order of the arguments; None where `errors` has the place."""

    values: list[str | None]
    errors: dict[int, ItemError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenForm:
    """Tokens with a form of their own: `length` symbols of `alphabet`."""

    alphabet: str
    length: int

    @property
    def tokens(self) -> int:
        """How many there are."""
        return int(len(self.alphabet) ** self.length)

    def draw(self) -> str:
        """A random one."""
        table = _byte_table(self.alphabet)
        if table is None:
            return self.spell(secrets.randbelow(self.tokens))
        # Bytes beyond the last whole multiple of the alphabet's size are dropped, so no symbol is favoured.
        symbols, surplus = table
        drawn = b""
        while len(drawn) < self.length:
            drawn += os.urandom(2 * self.length).translate(symbols, surplus)
        return drawn[: self.length].decode("latin-1")

    def spell(self, number: int) -> str:
        """The symbols of a number under `tokens`."""
        out, radix = [], len(self.alphabet)
        for _ in range(self.length):
            number, place = divmod(number, radix)
            out.append(self.alphabet[place])
        return "".join(out)


@lru_cache(maxsize=512)
def _byte_table(alphabet: str) -> tuple[bytes, bytes] | None:
    """From a random byte to a symbol, and the bytes to drop; None if a symbol takes more than a byte."""
    try:
        symbols = alphabet.encode("latin-1")
    except UnicodeEncodeError:
        return None
    if len(symbols) > 256:  # noqa: PLR2004 - the values of a byte
        return None
    whole = 256 - 256 % len(symbols)
    return (symbols * (256 // len(symbols) + 1))[:256], bytes(range(whole, 256))


@dataclass(frozen=True, slots=True)
class Ff1Plan:
    """The token is the value encrypted within its own form; nothing is stored.

    Kept symbols, and the caller's tweak if the policy asks for one, are part of the tweak: the same
    middle digits under another prefix have another token.
    """

    format: Format
    luhn: Luhn | None = None
    kind: Literal["ff1"] = "ff1"

    def tokenize(self, values: Sequence[str], key: bytes, tweaks: Sequence[str] | None = None) -> Column:
        """Encrypt a column under a 32-byte key."""
        return self._run(values, key, tweaks, encrypt=True)

    def detokenize(self, tokens: Sequence[str], key: bytes, tweaks: Sequence[str] | None = None) -> Column:
        """Undo `tokenize` for the same key and tweaks."""
        return self._run(tokens, key, tweaks, encrypt=False)

    def _run(
        self, values: Sequence[str], key: bytes, tweaks: Sequence[str] | None, *, encrypt: bool
    ) -> Column:
        total = LUHN_TOTAL[self.luhn] if self.luhn else 0
        sum_in, sum_out = (0, total) if encrypt else (total, 0)
        column = Column([None] * len(values))
        groups: dict[int, tuple[Shape, list[int]]] = {}
        read, valid = self.format.read, self.format.valid
        for place, value in enumerate(values):
            shape = read(value)
            if shape is None or (encrypt and not valid(value)):
                column.errors[place] = BAD_VALUE
            elif shape.domain < MIN_DOMAIN:
                column.errors[place] = TOO_SMALL
            else:
                groups.setdefault(id(shape), (shape, []))[1].append(place)
        for shape, members in groups.values():
            places = members
            if self.luhn:
                sums = shape.luhn_sums([values[place] for place in members])
                places = [place for place, found in zip(members, sums, strict=True) if found == sum_in]
                column.errors.update(dict.fromkeys(set(members).difference(places), BAD_VALUE))
            group = [values[place] for place in places]
            own = [tweaks[place] for place in places] if tweaks else None
            results = _permute(
                shape, shape.take(group), self._tweaks(shape, group, own), key, encrypt=encrypt
            )
            for place, text in zip(places, shape.replace(group, results, sum_out), strict=True):
                column.values[place] = self.format.finish(text)
        if not encrypt:
            column.errors = dict.fromkeys(column.errors, UNOPENED)
        return column

    def _tweaks(self, shape: Shape, values: Sequence[str], own: Sequence[str] | None) -> list[bytes]:
        kept = [
            f"{self.format.context(value)}{symbols}".encode()
            for value, symbols in zip(values, shape.preserved(values), strict=True)
        ]
        if own is None:
            return kept
        # The length keeps what is kept and what the caller gave apart.
        return [
            len(text).to_bytes(4, "big") + text + given.encode("utf-8", "surrogatepass")
            for text, given in zip(kept, own, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class VaultPlan:
    """The token is random; the value stands encrypted in the store.

    Args:
        format: What values are; None takes any text.
        form: The form of tokens; None gives them the form of their values.
        luhn: As in the policy, for tokens with the form of their values.
        deterministic: Whether equal values have equal tokens.
        ttl_seconds: How long tokens live.
    """

    format: Format | None
    form: TokenForm | None
    luhn: Luhn | None = None
    deterministic: bool = True
    ttl_seconds: int | None = None
    kind: Literal["vault"] = "vault"

    def fault(self, value: str) -> ItemError | None:
        """Why a value cannot be tokenized, if so."""
        if self.format is None:
            return None
        shape = self.format.read(value)
        if shape is None or not self.format.valid(value):
            return BAD_VALUE
        if self.luhn and shape.luhn_sums([value]) != [0]:
            return BAD_VALUE
        return TOO_SMALL if self.form is None and shape.tokens < _MIN_DRAWS else None

    def draw(self, value: str) -> str:
        """A random token for a value that has no fault. It may be taken: the store decides."""
        if self.form is not None:
            return self.form.draw()
        shape = self.format.read(value) if self.format else None
        assert shape is not None, "a value without fault can be read"
        assert self.format is not None, "or it has a form"
        (token,) = shape.replace([value], [shape.draw()], LUHN_TOTAL[self.luhn] if self.luhn else 0)
        return self.format.finish(token)


@dataclass(frozen=True, slots=True)
class HashPlan:
    """The token is a keyed hash of the value: equal values are seen to be equal, none comes back."""

    format: Format | None
    form: TokenForm
    kind: Literal["hash"] = "hash"

    def tokenize(self, values: Sequence[str], key: bytes) -> Column:
        """HMAC-SHA-256 of each value without its separators, under a 32-byte key."""
        column = Column([None] * len(values))
        for place, value in enumerate(values):
            shape = self.format.read(value) if self.format else None
            if self.format and (shape is None or not self.format.valid(value)):
                column.errors[place] = BAD_VALUE
                continue
            text = value
            if shape and self.format:
                text = f"{self.format.context(value)}{shape.only_symbols([value])[0]}"
            column.values[place] = self.form.spell(_hash(key, text) % self.form.tokens)
        return column


@dataclass(frozen=True, slots=True)
class RedactPlan:
    """The token is what a view leaves of the value."""

    view: View
    kind: Literal["redact"] = "redact"

    def tokenize(self, values: Sequence[str]) -> Column:
        """Show each value in the policy's view."""
        return Column([self.view.apply(value) for value in values])


Plan: TypeAlias = Ff1Plan | VaultPlan | HashPlan | RedactPlan


def _hash(key: bytes, text: str) -> int:
    encoded = _HASH_LABEL + text.encode("utf-8", "surrogatepass")
    # 512 bits, so that reducing to a form of up to 2**256 tokens shows no bias.
    return int.from_bytes(hmac.digest(key, encoded, "sha512"), "big")


def _permute(shape: Shape, bodies: list[str], tweaks: list[bytes], key: bytes, *, encrypt: bool) -> list[str]:
    """Permute the replaced symbols of values of one shape within their domain."""
    alphabet = shape.alphabets[0]
    if all(other == alphabet for other in shape.alphabets):
        cipher = FF1(key, alphabet)
        tweak: bytes | list[bytes] = tweaks[0] if len(set(tweaks)) == 1 else tweaks
        return (cipher.encrypt if encrypt else cipher.decrypt)(bodies, tweak)
    return _walk(shape, bodies, tweaks, key, encrypt=encrypt)


def _walk(shape: Shape, bodies: list[str], tweaks: list[bytes], key: bytes, *, encrypt: bool) -> list[str]:
    """Permute mixed alphabets: number the domain, and walk the cycles of FF1 over decimal numbers.

    A walk of a permutation over a larger set that stops at the next member of the smaller one is a
    permutation of the smaller one, and takes fewer than ten steps on average here.
    """
    cipher = FF1(key, DIGITS)
    step = cipher.encrypt if encrypt else cipher.decrypt
    width = len(str(shape.domain - 1))
    layout = "".join(map(_name, shape.alphabets)).encode()  # layouts of one size stay apart
    out = [""] * len(bodies)
    places = list(range(len(bodies)))
    numbers = [f"{_rank(body, shape.alphabets):0{width}}" for body in bodies]
    while places:
        numbers = step(numbers, [tweaks[place] + b"\0" + layout for place in places])
        outside = []
        for place, number in zip(places, numbers, strict=True):
            if int(number) < shape.domain:
                out[place] = _unrank(int(number), shape.alphabets)
            else:
                outside.append((place, number))
        places, numbers = [place for place, _ in outside], [number for _, number in outside]
    return out


@lru_cache(maxsize=64)
def _places(alphabet: str) -> dict[str, int]:
    return {symbol: place for place, symbol in enumerate(alphabet)}


@lru_cache(maxsize=64)
def _name(alphabet: str) -> str:
    return f"{len(alphabet)}:{alphabet[0]};"


def _rank(body: str, alphabets: Sequence[str]) -> int:
    number = 0
    for symbol, alphabet in zip(body, alphabets, strict=True):
        number = number * len(alphabet) + _places(alphabet)[symbol]
    return number


def _unrank(number: int, alphabets: Sequence[str]) -> str:
    out = []
    for alphabet in reversed(alphabets):
        number, place = divmod(number, len(alphabet))
        out.append(alphabet[place])
    return "".join(reversed(out))
