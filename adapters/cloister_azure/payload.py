"""From a delivery's JSON payload to the type that a handler declares: nothing is coerced, nothing dropped."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from cloister.errors import ConfigurationError, FunctionError

__all__ = ["Decoder", "decoder_for", "resolved_hints"]

Decoder = Callable[[Any], Any]

_EXACT: Final = (bool, int, str, dict, list, type(None))


class _MismatchError(Exception):
    """Carries no part of the payload."""


def decoder_for(hint: Any) -> Decoder:
    """A decoder for a parameter annotated `Delivery[T]`; without T, payloads stay JSON.

    Raises:
        ConfigurationError: T is no JSON type and no dataclass of JSON types.
    """
    decode = _decoder(*(get_args(hint) or (Any,)))

    def decode_or_refuse(payload: Any) -> Any:
        try:
            return decode(payload)
        except _MismatchError:
            raise FunctionError(
                "the payload is not of the type that the handler declares",
                hint="function and receiver are of different versions",
            ) from None

    return decode_or_refuse


def resolved_hints(handler: Callable[..., Any]) -> dict[str, Any]:
    """A handler's annotations as types, looked up where the handler is defined.

    Raises:
        ConfigurationError: An annotation names what is not there at run time.
    """
    try:
        return get_type_hints(handler)
    except NameError as error:
        raise ConfigurationError(
            f"an annotation of the handler names {error.name!r}, which is not defined",
            hint="Azure reads annotations at run time: import it outside TYPE_CHECKING",
        ) from None


def _decoder(kind: Any) -> Decoder:  # noqa: PLR0911 - one return per form
    arguments = get_args(kind)
    if kind is Any:
        return lambda value: value
    if kind in _EXACT:
        return _checked(lambda value: type(value) is kind)
    if kind is float:
        return _checked(lambda value: type(value) in {int, float})
    if get_origin(kind) is Literal:
        return _checked(lambda value: any(type(value) is type(word) and value == word for word in arguments))
    if get_origin(kind) in {Union, types.UnionType}:
        return _union([_decoder(member) for member in arguments])
    if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
        return _record(kind)
    if inspect.isclass(kind) and issubclass(kind, str):  # such as `cloister.Token`, which does not print
        return lambda value: kind(_decoder(str)(value))
    raise ConfigurationError(
        f"a payload cannot be a {getattr(kind, '__name__', kind)}", hint="use a dataclass of JSON types"
    )


def _checked(is_of_kind: Callable[[Any], bool]) -> Decoder:
    def decode(value: Any) -> Any:
        if not is_of_kind(value):
            raise _MismatchError
        return value

    return decode


def _union(members: list[Decoder]) -> Decoder:
    def decode(value: Any) -> Any:
        for member in members:
            try:
                return member(value)
            except _MismatchError:
                continue
        raise _MismatchError

    return decode


def _record(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    members = {field.name: _decoder(hints[field.name]) for field in fields}
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def decode(value: Any) -> Any:
        if type(value) is not dict or not required <= value.keys() <= members.keys():
            raise _MismatchError
        try:
            return kind(**{name: members[name](member) for name, member in value.items()})
        except (TypeError, ValueError):  # its __post_init__ refuses
            raise _MismatchError from None

    return decode
