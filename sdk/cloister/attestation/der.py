"""The little DER that vendor certificate extensions need (X.690): definite lengths, minimal, strict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cloister.attestation.reader import Reader
from cloister.errors import EvidenceError

__all__ = ["integer", "items", "object_identifier", "single"]

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
IA5_STRING: Final = 0x16
SEQUENCE: Final = 0x30
_LONG_FORM: Final = 0x80
_MAX_LENGTH_BYTES: Final = 2


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and contents of each element in `data`.

    Raises:
        EvidenceError: It is not DER.
    """
    reader = Reader(data, "certificate extension")
    while reader.position < len(data):
        tag, length = reader.big(1), reader.big(1)
        if length >= _LONG_FORM:
            count = length - _LONG_FORM
            if not 1 <= count <= _MAX_LENGTH_BYTES:
                raise EvidenceError("certificate extension: not DER (step: parse)")
            length = reader.big(count)
            if length < _LONG_FORM or length >> (8 * (count - 1)) == 0:
                raise EvidenceError("certificate extension: not DER (step: parse)")
        yield tag, reader.take(length)


def single(data: bytes, tag: int) -> bytes:
    """Contents of the one element in `data`, which must have this tag."""
    elements = list(items(data))
    if len(elements) != 1 or elements[0][0] != tag:
        raise EvidenceError("certificate extension: not of the expected type (step: parse)")
    return elements[0][1]


def integer(contents: bytes) -> int:
    """A non-negative INTEGER from its contents."""
    if not contents or contents[0] & 0x80:
        raise EvidenceError("certificate extension: not a non-negative integer (step: parse)")
    return int.from_bytes(contents, "big")


def object_identifier(contents: bytes) -> tuple[int, ...]:
    """The arcs of an OBJECT IDENTIFIER from its contents; the first two stay combined."""
    arcs, value = [], 0
    for byte in contents:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    return tuple(arcs)
