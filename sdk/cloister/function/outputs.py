"""Output classes: what a confidential function may let out, and nothing else.

The class is declared beside the function, recorded in its manifest and enforced by the host, outside
the sandbox. `check` returns the value in its one normal form, so that two spellings of one answer
(`1` and `1.0`, `0.0` and `-0.0`, the order of a record) cannot carry a hidden bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeAlias, TypeGuard

from cloister.errors import ConfigurationError, FunctionError
from cloister.function.names import check_context, check_name

__all__ = [
    "Boolean",
    "Enum",
    "Number",
    "OutputClass",
    "Record",
    "SealedUnder",
    "Text",
    "Token",
    "boolean",
    "enum",
    "number",
    "output_from_manifest",
    "record",
    "sealed",
    "text",
    "token",
]

_MAX_TEXT_CHARS: Final = 65536
_MAX_MEMBERS: Final = 64
_MAX_WORD_CHARS: Final = 64
_STRING: Final = {"type": "string"}


def _is_number(value: object) -> TypeGuard[int | float]:
    # 2**53: beyond it JSON readers disagree (RFC 8259 section 6); it also refuses infinity and NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_WORD_CHARS


def _is_field(value: object) -> bool:
    return isinstance(value, SealedUnder | Boolean | Number | Enum | Text | Token)


def _broken(what: str, hint: str) -> FunctionError:
    return FunctionError(f"the function's result is not in its declared output class {what}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedUnder:
    """A value sealed under a named key: marks an input (inside `Annotated`) or declares the output."""

    key: str
    context: tuple[str, ...] | None = None
    authenticated: bool = False
    sealed_by: tuple[str, ...] = ()
    kind: ClassVar[str] = "sealed"

    def __post_init__(self) -> None:
        check_name(self.key, "key")
        check_context(self.context, f"sealed({self.key!r})")
        for signer in self.sealed_by:
            check_name(signer, "signer")
        if len(set(self.sealed_by)) != len(self.sealed_by) or len(self.sealed_by) > _MAX_MEMBERS:
            raise ConfigurationError("sealed_by repeats a signer or has too many", hint="name each once")

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        described: dict[str, Any] = {"class": self.kind, "key": self.key}
        if self.context is not None:
            described["context"] = list(self.context)
        if self.authenticated:
            described["authenticated"] = True
        if self.sealed_by:
            described["sealed_by"] = list(self.sealed_by)
        return described

    def accepts(self, schema: Mapping[str, Any]) -> bool:  # noqa: ARG002 - one signature for every class
        """Whether results of this type can be released; anything JSON, text or bytes can be sealed."""
        return True

    def check(self, value: object) -> object:
        """Return the plaintext to seal; None is no value."""
        if value is None:
            raise _broken(self.kind, "return a value, not None")
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    """One bit in the clear."""

    kind: ClassVar[str] = "boolean"

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        return {"class": self.kind}

    def accepts(self, schema: Mapping[str, Any]) -> bool:
        """Whether results of this type can be released."""
        return schema == {"type": "boolean"}

    def check(self, value: object) -> bool:
        """Return the bool, or raise FunctionError: truthy values are not booleans."""
        if not isinstance(value, bool):
            raise _broken(self.kind, "return True or False")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number on a declared grid: `minimum + n * step`, up to `maximum`."""

    minimum: int | float
    maximum: int | float
    step: int | float
    kind: ClassVar[str] = "number"

    def __post_init__(self) -> None:
        for value in (self.minimum, self.maximum, self.step):
            if not _is_number(value):
                raise ConfigurationError(
                    "number() needs finite numbers", hint="write number(minimum=0, maximum=1, step=0.01)"
                )
        if self.step <= 0 or self.maximum < self.minimum:
            raise ConfigurationError(
                "number() has an empty range or no step", hint="minimum <= maximum, and step > 0"
            )

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        return {"class": self.kind, "minimum": self.minimum, "maximum": self.maximum, "step": self.step}

    def accepts(self, schema: Mapping[str, Any]) -> bool:
        """Whether results of this type can be released."""
        return schema in ({"type": "integer"}, {"type": "number"})

    def check(self, value: object) -> int | float:
        """Return the number in normal form, or raise FunctionError if it is off the grid."""
        if not _is_number(value):
            raise _broken(self.kind, "return a finite number")
        exact, step = Decimal(str(value)), Decimal(str(self.step))
        if not self.minimum <= value <= self.maximum or (exact - Decimal(str(self.minimum))) % step:
            raise _broken(self.kind, "keep it within minimum and maximum and round it to the step")
        whole = isinstance(self.minimum, int) and isinstance(self.step, int)
        return int(exact) if whole else float(exact) + 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Enum:
    """One of a few declared words."""

    values: tuple[str, ...]
    kind: ClassVar[str] = "enum"

    def __post_init__(self) -> None:
        good = all(_is_word(value) for value in self.values) and len(set(self.values)) == len(self.values)
        if not good or not 1 < len(self.values) <= _MAX_MEMBERS:
            raise ConfigurationError(
                "enum() needs 2 to 64 different short words", hint='write enum("low", "medium", "high")'
            )

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        return {"class": self.kind, "values": list(self.values)}

    def accepts(self, schema: Mapping[str, Any]) -> bool:
        """Whether results of this type can be released."""
        return schema == _STRING or ("enum" in schema and set(schema["enum"]) <= set(self.values))

    def check(self, value: object) -> str:
        """Return the word, or raise FunctionError if it was not declared."""
        if not isinstance(value, str) or value not in self.values:
            raise _broken(self.kind, "return one of the declared words")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Free text in the clear, up to a length. The widest class there is: prefer any other."""

    max_chars: int
    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if type(self.max_chars) is not int or not 1 <= self.max_chars <= _MAX_TEXT_CHARS:
            raise ConfigurationError("text() needs a length", hint=f"max_chars is 1 to {_MAX_TEXT_CHARS}")

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        return {"class": self.kind, "max_chars": self.max_chars}

    def accepts(self, schema: Mapping[str, Any]) -> bool:
        """Whether results of this type can be released."""
        return schema == _STRING or "enum" in schema

    def check(self, value: object) -> str:
        """Return the text, or raise FunctionError if it is too long or not text."""
        if not isinstance(value, str) or len(value) > self.max_chars:
            raise _broken(self.kind, "return text no longer than max_chars")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _broken(self.kind, "return text without lone surrogates") from None
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A value that leaves as a token of a policy; the host tokenizes what the function returns."""

    policy: str
    kind: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        check_name(self.policy, "tokenization policy")

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        return {"class": self.kind, "policy": self.policy}

    def accepts(self, schema: Mapping[str, Any]) -> bool:
        """Whether results of this type can be released."""
        return schema == _STRING

    def check(self, value: object) -> str:
        """Return the value to tokenize, or raise FunctionError if it is not text."""
        if not isinstance(value, str):
            raise _broken(self.kind, "return the value to tokenize as text")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Named fields, each with a class of its own."""

    fields: Mapping[str, FieldClass]
    kind: ClassVar[str] = "record"

    def __post_init__(self) -> None:
        if not 1 <= len(self.fields) <= _MAX_MEMBERS:
            raise ConfigurationError(
                "record() has no fields", hint="write record(account=text(max_chars=32))"
            )
        for name, member in self.fields.items():
            if not _is_field(member):
                raise ConfigurationError(
                    f"field {name!r} of record() has no output class",
                    hint="use boolean(), number(), enum(), text(), token() or sealed() for each field",
                )

    def to_manifest(self) -> dict[str, Any]:
        """Describe this class in JSON."""
        return {
            "class": self.kind,
            "fields": {name: member.to_manifest() for name, member in self.fields.items()},
        }

    def accepts(self, schema: Mapping[str, Any]) -> bool:
        """Whether results of this type have exactly the declared fields."""
        properties = schema.get("properties", {})
        return properties.keys() == self.fields.keys() and all(
            member.accepts(properties[name]) for name, member in self.fields.items()
        )

    def check(self, value: object) -> dict[str, Any]:
        """Return the fields in declared order, or raise FunctionError if any is missing, extra or wrong."""
        if not isinstance(value, Mapping) or value.keys() != self.fields.keys():
            raise _broken(self.kind, "return exactly the declared fields")
        return {name: member.check(value[name]) for name, member in self.fields.items()}


FieldClass: TypeAlias = SealedUnder | Boolean | Number | Enum | Text | Token
OutputClass: TypeAlias = FieldClass | Record


def sealed(
    key: str,
    *,
    context: list[str] | tuple[str, ...] | None = None,
    authenticated: bool = False,
    sealed_by: str | list[str] | tuple[str, ...] = (),
) -> SealedUnder:
    """A value sealed under `key`: use it inside `Annotated[...]` for an input, or as the output.

    Args:
        key: Name of the tenant's key.
        context: Names that the ciphertext is bound to; the caller supplies their values. The same name
            means the same value everywhere in one invocation.
        authenticated: Inputs only. Accept only values made under a data key, so by someone with the
            right to seal; a value sealed offline to a public half proves nothing about its author.
        sealed_by: Inputs only. Accept only values that one of these registered signers has signed for
            this key and context, from `Client.seal(..., signer=...)`.
    """
    return SealedUnder(
        key=key,
        context=check_context(context, f"sealed({key!r})"),
        authenticated=authenticated,
        sealed_by=(sealed_by,) if isinstance(sealed_by, str) else tuple(sealed_by),
    )


def boolean() -> Boolean:
    """A plain True or False."""
    return Boolean()


def number(*, minimum: float, maximum: float, step: float) -> Number:
    """A number between `minimum` and `maximum` on a grid of `step`: the coarser, the less it tells."""
    return Number(minimum=minimum, maximum=maximum, step=step)


def enum(*values: str) -> Enum:
    """One of the given words."""
    return Enum(values=values)


def text(*, max_chars: int) -> Text:
    """Text in the clear of at most `max_chars` characters."""
    return Text(max_chars=max_chars)


def token(policy: str) -> Token:
    """A token under `policy`: the function returns the value, the host lets out its token."""
    return Token(policy=policy)


def record(**fields: FieldClass) -> Record:
    """Several named outputs, for a function that returns a dataclass or a dict."""
    return Record(fields=fields)


def output_from_manifest(described: Mapping[str, Any]) -> OutputClass:
    """Rebuild an output class from a manifest.

    Raises:
        ConfigurationError: The class is unknown or one of its values cannot be used. Wrong JSON types
            may also show as TypeError, KeyError or AttributeError, which `Manifest.parse` maps.
    """
    arguments = {name: value for name, value in described.items() if name != "class"}
    if described["class"] == Record.kind:
        members = arguments.pop("fields").items()
        return record(**{name: _field_from_manifest(member) for name, member in members}, **arguments)
    return _field_from_manifest(described)


def _field_from_manifest(described: Mapping[str, Any]) -> FieldClass:
    arguments = {name: value for name, value in described.items() if name != "class"}
    if "values" in arguments:
        arguments["values"] = tuple(arguments["values"])
    if described["class"] not in _FIELDS:
        raise ConfigurationError("the manifest names an unknown output class", hint="build it again")
    return _FIELDS[described["class"]](**arguments)


_FIELDS: Final[dict[str, Callable[..., FieldClass]]] = {
    SealedUnder.kind: sealed,
    Boolean.kind: Boolean,
    Number.kind: Number,
    Enum.kind: Enum,
    Text.kind: Text,
    Token.kind: Token,
}
