"""What is done to a column: one call to the host for all of its rows that are not null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from cloister.columns.column import Column, filled
from cloister.errors import ConfigurationError, EvidenceError
from cloister.faas.enclave import Invoker
from cloister.faas.fields import Sealer
from cloister.mask import View

__all__ = ["Caller", "invoke", "mask", "retokenize", "rewrap", "seal", "show", "tokenize"]

Contexts = Sequence[Mapping[str, str] | None]

BAD_VALUE: Final = ConfigurationError.code
MAX_TOKEN_CHARS: Final = 4096  # the host refuses a batch with a longer value or token as a whole
MAX_TWEAK_CHARS: Final = 256


class Caller(Protocol):
    """Port: whoever calls operations of the host; `cloister.Client` is one."""

    def call(
        self,
        op: str,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Mapping[str, Any]:
        """Carry out one operation."""
        ...


def seal(sealer: Sealer, values: Sequence[Any], *, key: str, contexts: Contexts | None = None) -> Column:
    """Seal a column here, under a data key of the host.

    Args:
        sealer: For example a `cloister.Client`.
        values: Text, bytes, numbers, booleans or what else JSON has; another value is its row's error.
        key: The tenant's key.
        contexts: What each value is bound to.
    """
    places = filled([values], len(values))
    good = [place for place in places if _has_json(values[place])]
    sealed = sealer.seal_many(
        [values[place] for place in good],
        key=key,
        contexts=None if contexts is None else [contexts[place] for place in good],
    )
    column = Column.spread(len(values), good, [str(value) for value in sealed], {})
    column.errors.update(dict.fromkeys(set(places) - set(good), BAD_VALUE))
    return column


def tokenize(
    caller: Caller,
    values: Sequence[str | None],
    *,
    policy: str,
    tweaks: Sequence[str | None] | None = None,
    idempotency_key: str | None = None,
) -> Column:
    """Replace values by tokens; a value that does not fit the policy is its row's error."""
    extra = {"policy": policy, "partial": True}
    return _tokens(
        caller, "token.tokenize", "values", values, extra, tweaks=tweaks, idempotency_key=idempotency_key
    )


def retokenize(
    caller: Caller,
    tokens: Sequence[str | None],
    *,
    policy: str,
    to: str | None = None,
    key_version: int | None = None,
    tweaks: Sequence[str | None] | None = None,
    idempotency_key: str | None = None,
) -> Column:
    """Move tokens to a policy's current key version, or to another policy, unseen."""
    extra = {"policy": policy, "to": to, "key_version": key_version}
    return _tokens(
        caller, "token.retokenize", "tokens", tokens, extra, tweaks=tweaks, idempotency_key=idempotency_key
    )


def show(
    caller: Caller,
    tokens: Sequence[str | None],
    *,
    policy: str,
    key_version: int | None = None,
    tweaks: Sequence[str | None] | None = None,
    purpose: str | None = None,
) -> Column:
    """What the caller may see of the values behind tokens: the policy's views decide, in the host."""
    extra = {"policy": policy, "key_version": key_version}
    return _tokens(caller, "token.detokenize", "tokens", tokens, extra, tweaks=tweaks, purpose=purpose)


def rewrap(
    caller: Caller, values: Sequence[str | None], *, key: str, contexts: Contexts | None = None
) -> Column:
    """Move sealed values to a key's current version, unseen.

    A value is sealed anew only where its context is given; without, it keeps its data key.
    """
    places = filled([values], len(values))
    if not places:
        return Column(values=[None] * len(values), errors={})
    items: list[dict[str, Any]] = [{"value": values[place]} for place in places]
    if contexts is not None:
        for item, place in zip(items, places, strict=True):
            if (context := contexts[place]) is not None:
                item["context"] = dict(context)
    result = caller.call("key.rewrap", {"key": key, "items": items})
    return _spread(len(values), places, result, "values")


def invoke(
    invoker: Invoker,
    function: str,
    columns: Mapping[str, Sequence[Any]],
    *,
    rows: int,
    context: Mapping[str, Sequence[str | None]],
    idempotency_key: str | None = None,
) -> Column:
    """Call a confidential batch function on the rows that have no null in them.

    Args:
        invoker: For example a `cloister.Client`.
        function: `name@alias`, or `name@<digest>`.
        columns: The function's inputs.
        rows: How many there are.
        context: The function's context, as text.
        idempotency_key: The batch has its effect once under it.
    """
    places = filled([*columns.values(), *context.values()], rows)
    if not places:
        return Column(values=[None] * rows, errors={})
    bound = {name: [str(column[place]) for place in places] for name, column in context.items()}
    inputs = {name: [column[place] for place in places] for name, column in columns.items()}
    reply = invoker.invoke_batch(function, context=bound, idempotency_key=idempotency_key, **inputs)
    return Column.spread(rows, places, reply.values, reply.errors)


def mask(values: Sequence[str | None], view: View) -> Column:
    """Show each value in a view, here; no host is asked. What is no text is its row's error."""
    places = filled([values], len(values))
    shown: list[str | None] = [None] * len(values)
    errors = {}
    for place in places:
        value = values[place]
        if isinstance(value, str):
            shown[place] = view.apply(value)
        else:
            errors[place] = BAD_VALUE
    return Column(values=shown, errors=errors)


def _tokens(
    caller: Caller,
    op: str,
    member: str,
    column: Sequence[str | None],
    extra: Mapping[str, Any],
    *,
    tweaks: Sequence[str | None] | None = None,
    idempotency_key: str | None = None,
    purpose: str | None = None,
) -> Column:
    given = filled([column] if tweaks is None else [column, tweaks], len(column))
    places = [
        place
        for place in given
        if _is_text(column[place], MAX_TOKEN_CHARS)
        and (tweaks is None or _is_text(tweaks[place], MAX_TWEAK_CHARS))
    ]
    out = Column(values=[None] * len(column), errors={})
    if places:
        payload: dict[str, Any] = {name: value for name, value in extra.items() if value is not None}
        payload[member] = [column[place] for place in places]
        if tweaks is not None:
            payload["tweaks"] = [tweaks[place] for place in places]
        result = caller.call(op, payload, idempotency_key=idempotency_key, purpose=purpose)
        out = _spread(len(column), places, result, "values" if op == "token.detokenize" else "tokens")
    out.errors.update(dict.fromkeys(set(given) - set(places), BAD_VALUE))
    return out


def _spread(rows: int, places: Sequence[int], result: Mapping[str, Any], member: str) -> Column:
    try:
        values = list(result[member])
        errors = {int(position): str(code) for position, code in result["errors"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise EvidenceError("the host's answer is malformed", hint="update the client or the host") from None
    return Column.spread(rows, places, values, errors)


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest


def _has_json(value: Any) -> bool:
    """Whether a value can be sealed: JSON has it, or it is bytes."""
    match value:
        case str() | bytes() | bool() | int():
            return True
        case float():
            return math.isfinite(value)
        case dict() | list():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                return False
            return True
    return False
