"""The arithmetic of FF1 over a whole column at once, exact at every length.

A half of a value is a list of NumPy columns, one a *limb*, the least significant first. A limb holds
as many symbols as keep it under 2**32, so every product, sum and partial remainder below stays under
2**64. AES output and the bytes of NUM(B) are columns of 32-bit words, the most significant first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Column: TypeAlias = NDArray[np.uint64]  # one number a value
    Numerals: TypeAlias = NDArray[np.uint32]  # (symbols, values)
    EncryptInto: TypeAlias = Callable[[memoryview, memoryview], int]

__all__ = ["Alphabet", "ForeignSymbolError", "Limbs", "RoundFunction", "limb_symbols"]

_WORD_BITS: Final = np.uint64(32)
_WORD: Final = np.uint64(0xFFFFFFFF)
_FOREIGN: Final = 0xFFFFFFFF


class ForeignSymbolError(Exception):
    """A value has a symbol outside the alphabet. Never leaves this package."""


@lru_cache(maxsize=64)
def limb_symbols(radix: int) -> int:
    """How many symbols of `radix` fit a limb."""
    count = 1
    while radix ** (count + 1) <= 1 << 32:
        count += 1
    return count


class Alphabet:
    """Symbols and their numerals, one value or one column at a time."""

    def __init__(self, symbols: str) -> None:
        points = np.array([ord(symbol) for symbol in symbols], np.uint32)
        self.radix: Final = len(symbols)
        self._symbols = symbols
        self._numeral = {symbol: numeral for numeral, symbol in enumerate(symbols)}
        self._narrow = int(points.max()) < 256  # noqa: PLR2004 - one byte a symbol
        self._encoding = "latin-1" if self._narrow else "utf-32-le"
        self._unit = np.dtype(np.uint8) if self._narrow else np.dtype("<u4")
        self._points = points.astype(self._unit)
        self._lookup = np.full(256 if self._narrow else int(points.max()) + 2, _FOREIGN, np.uint32)
        self._lookup[points] = np.arange(self.radix, dtype=np.uint32)

    def number(self, text: str) -> int:
        """NUM_radix (SP 800-38G, algorithm 1)."""
        number, radix, numeral = 0, self.radix, self._numeral
        try:
            for symbol in text:
                number = number * radix + numeral[symbol]
        except KeyError:
            raise ForeignSymbolError from None
        return number

    def string(self, number: int, length: int) -> str:
        """STR_radix (algorithm 3)."""
        out = [""] * length
        radix, symbols = self.radix, self._symbols
        for place in range(length - 1, -1, -1):
            number, numeral = divmod(number, radix)
            out[place] = symbols[numeral]
        return "".join(out)

    def numerals(self, values: Sequence[str]) -> Numerals:
        """The numerals of values of one length, as (symbols, values)."""
        try:
            encoded = "".join(values).encode(self._encoding)
        except UnicodeEncodeError:
            raise ForeignSymbolError from None
        raw: NDArray[np.integer[Any]] = np.frombuffer(encoded, self._unit)
        if not self._narrow:
            raw = np.minimum(raw, len(self._lookup) - 1)
        numerals = self._lookup.take(raw.reshape(len(values), -1).T)
        if int(numerals.max()) == _FOREIGN:
            raise ForeignSymbolError
        return numerals

    def strings(self, numerals: Numerals) -> list[str]:
        """Undo `numerals`."""
        length, count = numerals.shape
        text = self._points.take(numerals.T).tobytes().decode(self._encoding)
        return [text[start : start + length] for start in range(0, count * length, length)]


class Limbs:
    """Numbers under radix**length, a column of them."""

    def __init__(self, radix: int, length: int) -> None:
        self._radix = radix
        self._length = length
        self._step = limb_symbols(radix)
        self._count = -(-length // self._step)
        self._top_symbols = length - self._step * (self._count - 1)
        self._base = np.uint64(radix**self._step)
        self._top = np.uint64(radix**self._top_symbols)

    def read(self, numerals: Numerals) -> list[Column]:
        """NUM_radix of (length, values) numerals."""
        radix = np.uint64(self._radix)
        limbs = []
        end = self._length
        while end > 0:
            start = max(end - self._step, 0)
            limb = numerals[start].astype(np.uint64)
            for row in numerals[start + 1 : end]:
                limb *= radix
                limb += row
            limbs.append(limb)
            end = start
        return limbs

    def write(self, limbs: Sequence[Column], out: Numerals) -> None:
        """STR_radix into (length, values) numerals."""
        radix = np.uint32(self._radix)
        row = self._length
        for limb in limbs:
            left = limb.astype(np.uint32)
            for _ in range(min(self._step, row)):
                row -= 1
                quotient = left // radix
                np.subtract(left, quotient * radix, out=out[row])
                left = quotient

    def words(self, limbs: Sequence[Column]) -> list[Column]:
        """The number in 32-bit words, the least significant first; leading zero words may be absent."""
        if len(limbs) == 1:
            return list(limbs)
        words = [limbs[-1]]
        for limb in reversed(limbs[:-1]):
            carry = limb
            for place, word in enumerate(words):
                product = word * self._base + carry  # at most 2**64 - 1
                words[place] = product & _WORD
                carry = product >> _WORD_BITS
            words.append(carry)
        return words

    def reduce(self, stream: Sequence[Column]) -> list[Column]:
        """NUM(S) mod radix**length, of big-endian words of which the first has 64 bits."""
        if self._count == 1:
            return [_remainder(stream, self._top)]
        words = [stream[0] >> _WORD_BITS, stream[0] & _WORD, *stream[1:]]
        limbs = []
        for _ in range(self._count - 1):
            rest = np.zeros_like(words[0])
            for place, word in enumerate(words):
                dividend = (rest << _WORD_BITS) | word
                words[place] = dividend // self._base
                rest = dividend - words[place] * self._base
            limbs.append(rest)
        return [*limbs, _remainder(words, self._top)]

    def add(self, limbs: Sequence[Column], other: Sequence[Column]) -> list[Column]:
        """(limbs + other) mod radix**length."""
        out = []
        carry: Column | None = None
        for place, modulus in self._moduli():
            total = limbs[place] + other[place]
            if carry is not None:
                total += carry
            carry = (total >= modulus).astype(np.uint64)
            total -= carry * modulus
            out.append(total)
        return out

    def subtract(self, limbs: Sequence[Column], other: Sequence[Column]) -> list[Column]:
        """(limbs - other) mod radix**length."""
        out = []
        borrow: Column | None = None
        for place, modulus in self._moduli():
            total = limbs[place] + modulus - other[place]
            if borrow is not None:
                total -= borrow
            enough = (total >= modulus).astype(np.uint64)
            total -= enough * modulus
            borrow = np.uint64(1) - enough
            out.append(total)
        return out

    def _moduli(self) -> list[tuple[int, np.uint64]]:
        return [(place, self._base) for place in range(self._count - 1)] + [(self._count - 1, self._top)]


def _remainder(words: Sequence[Column], modulus: np.uint64) -> Column:
    rest = words[0] - words[0] // modulus * modulus
    for word in words[1:]:
        dividend = (rest << _WORD_BITS) | word
        rest = dividend - dividend // modulus * modulus
    return rest


class RoundFunction:
    """The CBC-MAC and key stream of a round (algorithm 7, steps 6.i to 6.iii) for a column.

    Args:
        encrypt_into: AES-ECB of whole blocks into a buffer 15 bytes longer.
        header: The block P.
        fixed: For each value, or once for all, the bytes of Q before the round number.
        number_bytes: b.
        stream_bytes: d.
        count: How many values.
    """

    def __init__(
        self,
        encrypt_into: EncryptInto,
        *,
        header: bytes,
        fixed: Sequence[bytes],
        number_bytes: int,
        stream_bytes: int,
        count: int,
    ) -> None:
        self._encrypt_into = encrypt_into
        self._count = count
        self._stream_words = stream_bytes // 4
        self._round_word, round_byte = divmod(number_bytes, 4)
        self._round_shift = 8 * round_byte
        # Everything before the last blocks is the same in every round, so it is MACed once.
        text = b"".join(one + bytes(1 + number_bytes) for one in fixed)
        blocks = np.frombuffer(text, ">u4").astype(np.uint32).reshape(len(fixed), -1, 4)
        constant = len(fixed[0]) // 16
        chain = np.tile(self._ecb(np.frombuffer(header, ">u4").reshape(1, 4)), (len(fixed), 1))
        for place in range(constant):
            chain = self._ecb(chain ^ blocks[:, place])
        self._tail = blocks[:, constant:].copy()
        self._tail[:, 0] ^= chain
        self._tail_words = self._tail.reshape(len(fixed), -1)

    def stream(self, round_number: int, words: Sequence[Column]) -> list[Column]:
        """The key stream S for NUM(B) in `words`, as `Limbs.reduce` takes it."""
        tail = self._tail_words
        text = np.empty((self._count, tail.shape[1]), ">u4")
        text[:] = tail
        for place, word in enumerate(words[: tail.shape[1]]):
            text[:, -1 - place] ^= word.astype(np.uint32)
        text[:, -1 - self._round_word] ^= np.uint32(round_number << self._round_shift)
        mac = self._ecb(text[:, :4])
        for start in range(4, tail.shape[1], 4):
            mac = self._ecb(text[:, start : start + 4] ^ mac)
        if (missing := self._stream_words - 4) > 0:
            more = np.repeat(mac[:, None, :], -(-missing // 4), axis=1)
            more[:, :, 3] ^= np.arange(1, more.shape[1] + 1, dtype=np.uint32)
            mac = np.concatenate([mac, self._ecb(more.reshape(-1, 4)).reshape(self._count, -1)], axis=1)
        first = mac[:, :2].astype(np.uint64)
        return [
            (first[:, 0] << _WORD_BITS) | first[:, 1],
            *(mac[:, place].astype(np.uint64) for place in range(2, self._stream_words)),
        ]

    def _ecb(self, blocks: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """AES of each row of four words, in one call."""
        source = np.ascontiguousarray(blocks, ">u4").view(np.uint8).reshape(-1)
        target = np.empty(source.size + 15, np.uint8)
        self._encrypt_into(source.data, target.data)
        return target[: source.size].view(">u4").reshape(-1, 4)
