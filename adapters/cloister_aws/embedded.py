"""JSON that events and responses carry as text: looked into where a path leads into it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from cloister.errors import ConfigurationError
from cloister_aws.events import HTTP, RECORDS, Source, source_of

__all__ = ["change_json"]


class _Text(NamedTuple):
    """A member that holds JSON as text."""

    steps: tuple[str, ...]
    is_base64: bool


class _Untouched(str):
    """A JSON text without members, as it came: no path leads into a string or a number."""

    __slots__ = ()


def change_json(
    document: Any, change: Callable[[Any], Any], *, leads_into: Callable[[Sequence[str]], bool]
) -> Any:
    """Apply `change` to an event, a record or a response with its JSON texts decoded; encode them again.

    Args:
        document: Stays as it is. Powertools' data classes come back as what they were.
        change: From JSON to JSON.
        leads_into: Whether a path goes on below a place; texts that none leads into are left alone.

    Raises:
        ConfigurationError: A text that a path leads into is not JSON.
    """
    raw = getattr(document, "raw_event", document)
    texts = [text for text in _texts(raw) if leads_into(text.steps)]
    changed = raw
    for text in texts:
        changed = _replaced(changed, text.steps, partial(_decode, text))
    changed = change(changed)
    for text in texts:
        changed = _replaced(changed, text.steps, partial(_encode, text))
    return changed if raw is document else type(document)(changed)


def _texts(document: Any) -> list[_Text]:
    """Where an event, a record or a response holds JSON as text."""
    if not isinstance(document, Mapping):
        return []
    source = source_of(document)
    if source in RECORDS:
        found = [(("Records", str(n)), record) for n, record in enumerate(document["Records"])]
        return [text for steps, record in found for text in _of_record(source, steps, record)]
    if source in HTTP or "statusCode" in document:
        return [_Text(("body",), document.get("isBase64Encoded") is True)]
    alone = source_of({"Records": [document]})
    return _of_record(alone, (), document)


def _of_record(source: Source, steps: tuple[str, ...], record: Mapping[str, Any]) -> list[_Text]:
    if source is Source.SQS:
        return [_Text((*steps, "body"), is_base64=False)]
    if source is Source.SNS:
        return [_Text((*steps, "Sns", "Message"), is_base64=False)]
    if source is Source.KINESIS and "data" in record["kinesis"]:
        return [_Text((*steps, "kinesis", "data"), is_base64=True)]
    return []


def _replaced(node: Any, steps: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """A copy of a document with one place changed; if there is no such place, the document."""
    if not steps:
        return change(node)
    if isinstance(node, list) and int(steps[0]) < len(node):
        copied = list(node)
        copied[int(steps[0])] = _replaced(node[int(steps[0])], steps[1:], change)
        return copied
    if isinstance(node, Mapping) and steps[0] in node:
        return {**node, steps[0]: _replaced(node[steps[0]], steps[1:], change)}
    return node


def _decode(text: _Text, value: Any) -> Any:
    if value is None or value == "":
        return value
    try:
        raw = base64.b64decode(value, validate=True) if text.is_base64 else value
        decoded = json.loads(raw)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise ConfigurationError(
            f"{'.'.join(text.steps)} is not JSON, though a path leads into it", hint="send JSON"
        ) from None
    return decoded if isinstance(decoded, dict | list) else _Untouched(value)


def _encode(text: _Text, value: Any) -> Any:
    if value is None or value == "":
        return value
    if isinstance(value, _Untouched):
        return str(value)
    # A place that was sealed or redacted as a whole is text already.
    encoded = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return base64.b64encode(encoded.encode()).decode() if text.is_base64 else encoded
