"""FF1 format-preserving encryption, one column at a time (NIST SP 800-38G and draft revision 1).

A batch is grouped by length and run through the ten Feistel rounds together, each round one AES-ECB
call over the whole group (`columns` has the arithmetic). Few values, or very long ones, run through
Python's integers instead, where that is faster. Both ways are exact at every length.

FF1 may be covered by patents in some countries; see docs/tokenization.md.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from cloister.errors import ConfigurationError
from cloister_host.tokenization.columns import (
    Alphabet,
    ForeignSymbolError,
    Limbs,
    RoundFunction,
    limb_symbols,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FF1", "MIN_DOMAIN"]

MIN_DOMAIN: Final = 1_000_000  # draft revision 1, section 5.1: radix ** minlen
_MIN_DOMAIN_2016: Final = 100  # the same in the first edition
_MIN_RADIX: Final = 2
_MAX_RADIX: Final = 1 << 16
_MAX_TWEAK_BYTES: Final = (1 << 32) - 1
_ROUNDS: Final = 10
_BLOCK: Final = 16  # bytes of an AES block
_MIN_BATCH: Final = 16  # for each limb: below this, Python's integers beat NumPy's cost per call
_MAX_LIMBS: Final = 8  # above this, converting between bases costs more than Python's integers


class _Shape(NamedTuple):
    """What depends only on (radix, length, tweak length): algorithm 7, steps 1 to 5."""

    left: int  # u: symbols in A
    right: int  # v: symbols in B
    moduli: tuple[int, int]  # radix ** u and radix ** v, by the parity of the round
    number_bytes: int  # b: bytes of NUM(B)
    stream_bytes: int  # d: bytes of S
    zero_bytes: int  # between the tweak and the round number
    header: bytes  # P


@lru_cache(maxsize=1024)
def _shape(radix: int, length: int, tweak_bytes: int) -> _Shape:
    left = length // 2
    right = length - left
    number_bytes = ((radix**right - 1).bit_length() + 7) // 8
    header = b"\x01\x02\x01" + radix.to_bytes(3, "big") + bytes((_ROUNDS, left & 0xFF))
    return _Shape(
        left=left,
        right=right,
        moduli=(radix**left, radix**right),
        number_bytes=number_bytes,
        stream_bytes=4 * -(-number_bytes // 4) + 4,
        zero_bytes=(-tweak_bytes - number_bytes - 1) % 16,
        header=header + length.to_bytes(4, "big") + tweak_bytes.to_bytes(4, "big"),
    )


class FF1:
    """FF1 under one AES key and one alphabet. Safe to share between threads.

    Args:
        key: 16, 24 or 32 bytes.
        alphabet: 2 to 2**16 different symbols; a symbol's place is its numeral.
        unsafe_small_domain: Accept values whose domain is under 10**6 but at least 100, as the
            first edition of the standard did. Such values can be recovered from their tokens
            (Hoang, Tessaro, Trieu 2018); only test vectors need it.

    Raises:
        ConfigurationError: The key or the alphabet cannot be used.
    """

    def __init__(self, key: bytes, alphabet: str, *, unsafe_small_domain: bool = False) -> None:
        if len(key) not in {16, 24, 32}:
            raise ConfigurationError("an FF1 key has 16, 24 or 32 bytes")
        self.radix: Final = len(alphabet)
        if not _MIN_RADIX <= self.radix <= _MAX_RADIX or len(set(alphabet)) != self.radix:
            raise ConfigurationError("an FF1 alphabet has 2 to 65536 different symbols")
        if any("\ud800" <= symbol <= "\udfff" for symbol in alphabet):
            raise ConfigurationError("an FF1 alphabet cannot contain surrogates")
        self._alphabet = Alphabet(alphabet)
        self._min_length = 2
        while self.radix**self._min_length < (_MIN_DOMAIN_2016 if unsafe_small_domain else MIN_DOMAIN):
            self._min_length += 1
        self._aes = _Aes(key)

    def __repr__(self) -> str:
        return f"FF1(radix={self.radix})"

    @property
    def min_length(self) -> int:
        """The fewest symbols a value may have."""
        return self._min_length

    def encrypt(self, values: Sequence[str], tweak: bytes | Sequence[bytes] = b"") -> list[str]:
        """Encrypt each value to another string of the same length over the same alphabet.

        Args:
            values: Strings over the alphabet, of any mixture of lengths from `min_length`.
            tweak: One tweak for all, or one for each value.

        Raises:
            ConfigurationError: A value is too short or has a symbol outside the alphabet (the
                message gives its place in the batch, never the value); a tweak is missing.
        """
        return self._run(values, tweak, encrypt=True)

    def decrypt(self, values: Sequence[str], tweak: bytes | Sequence[bytes] = b"") -> list[str]:
        """Undo `encrypt` for the same key and tweaks; arguments and errors as there."""
        return self._run(values, tweak, encrypt=False)

    def _run(self, values: Sequence[str], tweak: bytes | Sequence[bytes], *, encrypt: bool) -> list[str]:
        if isinstance(tweak, bytes):
            lengths = set(map(len, values))
            if len(lengths) <= 1:  # the common column: one length, one tweak
                return self._group(values, tweak, range(len(values)), encrypt=encrypt) if lengths else []
            tweaks: Sequence[bytes] = (tweak,) * len(values)
        else:
            tweaks = tweak
            if len(tweaks) != len(values):
                raise ConfigurationError("give one tweak for all values, or as many tweaks as values")
        groups: dict[tuple[int, int], list[int]] = {}
        for place, (value, own) in enumerate(zip(values, tweaks, strict=True)):
            groups.setdefault((len(value), len(own)), []).append(place)
        out = [""] * len(values)
        for places in groups.values():
            own_tweaks = tweak if isinstance(tweak, bytes) else [tweaks[place] for place in places]
            group = [values[place] for place in places]
            for place, result in zip(
                places, self._group(group, own_tweaks, places, encrypt=encrypt), strict=True
            ):
                out[place] = result
        return out

    def _group(
        self,
        values: Sequence[str],
        tweak: bytes | Sequence[bytes],
        places: Sequence[int],
        *,
        encrypt: bool,
    ) -> list[str]:
        """Run values of one length under tweaks of one length; `places` is for messages."""
        length = len(values[0])
        tweak_bytes = len(tweak) if isinstance(tweak, bytes) else len(tweak[0])
        if length < self._min_length:
            raise ConfigurationError(
                f"value {places[0]} has {length} symbols of {self.radix}",
                hint=f"FF1 needs at least {self._min_length}: a domain of a million values",
            )
        if length >> 32 or tweak_bytes > _MAX_TWEAK_BYTES:
            raise ConfigurationError("FF1 takes fewer than 2**32 symbols and tweak bytes")
        shape = _shape(self.radix, length, tweak_bytes)
        limbs = -(-shape.right // limb_symbols(self.radix))
        if len(values) >= _MIN_BATCH * limbs and limbs <= _MAX_LIMBS:
            with suppress(ForeignSymbolError):  # the way below finds its place
                return self._batch(values, tweak, shape, encrypt=encrypt)
        tweaks = (tweak,) * len(values) if isinstance(tweak, bytes) else tweak
        out = []
        for value, own, place in zip(values, tweaks, places, strict=True):
            try:
                out.append(self._single(value, own, shape, encrypt=encrypt))
            except ForeignSymbolError:
                raise ConfigurationError(f"value {place} has a symbol outside the alphabet") from None
        return out

    def _single(self, value: str, tweak: bytes, shape: _Shape, *, encrypt: bool) -> str:
        """One value, with Python's integers."""
        aes = self._aes.context.update
        a = self._alphabet.number(value[: shape.left])
        b = self._alphabet.number(value[shape.left :])
        fixed = tweak + bytes(shape.zero_bytes)
        constant = len(fixed) & ~15
        chain = _mac(aes, _int(aes(shape.header)), fixed[:constant])
        tail = fixed[constant:]
        number_bytes, stream_bytes = shape.number_bytes, shape.stream_bytes
        number_bits = 8 * number_bytes
        moduli = shape.moduli
        one_block = len(tail) + 1 + number_bytes == _BLOCK and stream_bytes <= _BLOCK
        chain ^= _int(tail) << number_bits + 8 if one_block else 0
        unused_bits = 8 * (_BLOCK - stream_bytes)
        for i in range(_ROUNDS) if encrypt else range(_ROUNDS - 1, -1, -1):
            number = b if encrypt else a
            if one_block:
                y = _int(aes((chain ^ i << number_bits ^ number).to_bytes(_BLOCK, "big"))) >> unused_bits
            else:
                text = tail + (i << number_bits | number).to_bytes(1 + number_bytes, "big")
                y = _stream(aes, _mac(aes, chain, text), stream_bytes)
            if encrypt:
                a, b = b, (a + y) % moduli[i & 1]
            else:
                a, b = (b - y) % moduli[i & 1], a
        return self._alphabet.string(a, shape.left) + self._alphabet.string(b, shape.right)

    def _batch(
        self, values: Sequence[str], tweak: bytes | Sequence[bytes], shape: _Shape, *, encrypt: bool
    ) -> list[str]:
        """Many values, with columns."""
        numerals = self._alphabet.numerals(values)
        halves = (Limbs(self.radix, shape.left), Limbs(self.radix, shape.right))
        a = halves[0].read(numerals[: shape.left])
        b = halves[1].read(numerals[shape.left :])
        zeros = bytes(shape.zero_bytes)
        function = RoundFunction(
            self._aes.context.update_into,
            header=shape.header,
            fixed=[one + zeros for one in ([tweak] if isinstance(tweak, bytes) else tweak)],
            number_bytes=shape.number_bytes,
            stream_bytes=shape.stream_bytes,
            count=len(values),
        )
        for i in range(_ROUNDS) if encrypt else range(_ROUNDS - 1, -1, -1):
            target, source = halves[i & 1], halves[1 - (i & 1)]
            y = target.reduce(function.stream(i, source.words(b if encrypt else a)))
            if encrypt:
                a, b = b, target.add(a, y)
            else:
                a, b = target.subtract(b, y), a
        out = np.empty((len(numerals), len(values)), np.uint32)
        halves[0].write(a, out[: shape.left])
        halves[1].write(b, out[shape.left :])
        return self._alphabet.strings(out)


_int = partial(int.from_bytes, byteorder="big")


def _mac(aes: Callable[[bytes], bytes], chain: int, text: bytes) -> int:
    """CBC-MAC of whole blocks, going on from `chain`."""
    for start in range(0, len(text), _BLOCK):
        chain = _int(aes((chain ^ _int(text[start : start + _BLOCK])).to_bytes(_BLOCK, "big")))
    return chain


def _stream(aes: Callable[[bytes], bytes], mac: int, stream_bytes: int) -> int:
    """NUM(S), algorithm 7, steps 6.iii and 6.iv."""
    more = ((mac ^ j).to_bytes(_BLOCK, "big") for j in range(1, -(-stream_bytes // _BLOCK)))
    return _int((mac.to_bytes(_BLOCK, "big") + aes(b"".join(more)))[:stream_bytes])


class _Aes(threading.local):
    """AES-ECB under one key: a context for each thread, since a context is not shareable."""

    def __init__(self, key: bytes) -> None:
        # ECB here is the bare block cipher from which the standard builds its CBC-MAC.
        self.context: CipherContext = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
