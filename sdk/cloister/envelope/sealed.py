"""A sealed value in text: its shape and what its header tells without any key."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from cloister.errors import OpenError
from cloister.jose import b64url_decode
from cloister.jose.jwe import MAX_CHARS, parse_jwe_header

__all__ = ["VALUE_TYP", "Sealed", "ValueHeader", "is_kid"]

VALUE_TYP: Final = "cloister-value+jwe"
_ALGS: Final = frozenset({"A256KW", "HPKE-10-KE", "HPKE-7-KE"})
_CTYS: Final = frozenset({"octets", "text", "json"})
_KID: Final = r"[a-z][a-z0-9-]{0,62}\.[1-9][0-9]{0,8}"
_WRAPPED_CHARS: Final = 54  # 40 bytes: RFC 3394 over 32
_HPKE_WRAPPED_CHARS: Final = 64  # 48 bytes: AES-256-GCM over 32
_IS_KID: Final = re.compile(_KID).fullmatch
_IS_CTX: Final = re.compile(r"[A-Za-z0-9_-]{22}").fullmatch
# Exactly what this package writes for the values of a column. A header of this form says the same to
# every JSON parser, so it needs none: that is half of the time it takes to open a small value.
_OWN: Final = re.compile(
    r'{"alg":"(A256KW)","enc":"A256GCM","kid":"(' + _KID + r')","typ":"cloister-value\+jwe",'
    r'"cty":"(octets|text|json)"(?:,"ctx":"([A-Za-z0-9_-]{22})")?}'
).fullmatch


class ValueHeader(NamedTuple):
    """The header members that matter for a value."""

    alg: str
    kid: str
    cty: str
    ctx: str | None
    ek: str | None


class Sealed(str):
    """A sealed value, as compact JWE. It is text: store it, compare it, send it.

    `Sealed(text)` checks the shape and raises `OpenError` when the text is not a sealed value. It says
    nothing about whether the value opens; only a key holder can.
    """

    __slots__ = ("_header",)
    _header: ValueHeader

    def __new__(cls, text: str) -> Self:
        """Check the shape of a sealed value."""
        if isinstance(text, cls):
            return text
        self = super().__new__(cls, text)
        self._header = _parse(self)
        return self

    @property
    def header(self) -> ValueHeader:
        """The parsed header, read once."""
        try:
            return self._header
        except AttributeError:
            self._header = _parse(self)
            return self._header

    @property
    def kid(self) -> str:
        """The key version it is sealed under, `<key>.<version>`."""
        return self.header.kid

    @property
    def key(self) -> str:
        """The name of the key."""
        return self.header.kid.rpartition(".")[0]

    @property
    def version(self) -> int:
        """The version of the key."""
        return int(self.header.kid.rpartition(".")[2])

    @property
    def alg(self) -> str:
        """`A256KW`, `HPKE-10-KE` or `HPKE-7-KE`."""
        return self.header.alg

    @property
    def cty(self) -> str:
        """What opens from it: `octets`, `text` or `json`."""
        return self.header.cty

    @property
    def has_context(self) -> bool:
        """Whether it opens only with the context it was sealed with."""
        return self.header.ctx is not None

    @property
    def encrypted_key(self) -> bytes:
        """The wrapped content-encryption key; values sealed under one data key share it."""
        try:
            return b64url_decode(self.split(".", 2)[1])
        except ValueError:
            raise OpenError from None

    def __repr__(self) -> str:
        return f"Sealed({self.kid!r}, {self.cty}, {len(self)} characters)"

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (str(self),)


def is_kid(kid: str) -> bool:
    """Tell whether a text names a key version."""
    return _IS_KID(kid) is not None


def _parse(text: str) -> ValueHeader:
    if len(text) > MAX_CHARS or not text.isascii():
        raise OpenError("not a sealed value", hint=f"ASCII, at most {MAX_CHARS} characters")
    parts = text.split(".", 2)
    if len(parts) != 3 or parts[2].count(".") != 2:  # noqa: PLR2004 - RFC 7516 section 3.1
        raise OpenError("not a sealed value", hint="it has five parts, joined by dots")
    header = _parse_header(parts[0])
    if len(parts[1]) != (_WRAPPED_CHARS if header.ek is None else _HPKE_WRAPPED_CHARS):
        raise OpenError("not a sealed value", hint="its encrypted key has another length")
    return header


@lru_cache(maxsize=1024)  # a column has one header; a header is public
def _parse_header(protected: str) -> ValueHeader:
    try:
        own = _OWN(b64url_decode(protected).decode("ascii"))
    except ValueError:
        own = None
    if own:
        alg, kid, cty, ctx = own.groups()
        return ValueHeader(alg, kid, cty, ctx, None)
    return _header(parse_jwe_header(protected))


def _header(header: dict[str, Any]) -> ValueHeader:
    """Check what is particular to values; a foreign JWE has no `typ` and may lack `cty` (SPEC section 5)."""
    alg, kid, cty, ctx = header["alg"], header.get("kid", ""), header.get("cty", "octets"), header.get("ctx")
    if header.get("typ", VALUE_TYP) != VALUE_TYP or ("typ" in header and "cty" not in header):
        raise OpenError("not a sealed value", hint=f"typ is {VALUE_TYP}, with cty, or absent")
    if alg not in _ALGS or not is_kid(kid) or cty not in _CTYS:
        raise OpenError("not a sealed value", hint="alg, kid or cty is none of a value")
    if "ctx" in header and not (isinstance(ctx, str) and _IS_CTX(ctx)):
        raise OpenError("not a sealed value", hint="ctx is 22 characters of base64url")
    if ("ek" in header) != alg.startswith("HPKE"):
        raise OpenError("not a sealed value", hint="ek belongs to HPKE algorithms")
    return ValueHeader(alg, kid, cty, ctx, header.get("ek"))
