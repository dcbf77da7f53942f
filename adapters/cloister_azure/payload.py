"""From a delivery's JSON payload to the type that a handler declares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from cloister.errors import ConfigurationError, EvidenceError
from cloister.function.schema import describe_type, fits

__all__ = ["Decoder", "decoder_for", "resolved_hints"]

Decoder = Callable[[Any], Any]


def decoder_for(hint: Any) -> Decoder:
    """A decoder for a parameter annotated `Delivery[T]`; without T, payloads stay JSON.

    Raises:
        ConfigurationError: T is no JSON type and no dataclass of JSON types.
    """
    arguments = get_args(hint)
    if not arguments:
        return lambda payload: payload
    (kind,) = arguments
    schema = describe_type(kind)
    known = frozenset(schema.get("properties", ()))

    def decode(payload: Any) -> Any:
        if not fits(schema, payload) or (dataclasses.is_dataclass(kind) and payload.keys() - known):
            raise EvidenceError(
                "the payload is not of the type that the handler declares",
                hint="function and receiver are of different versions",
            )
        return _build(kind, payload)

    return decode


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


def _build(kind: Any, payload: Any) -> Any:
    """Make dataclasses of objects that were found to fit."""
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return payload
    hints = get_type_hints(kind)
    return kind(**{name: _build(hints[name], value) for name, value in payload.items()})
