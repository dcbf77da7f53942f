"""The JSON that triggers bring and functions return, changed where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from cloister.errors import ConfigurationError
from cloister.faas.answers import plain

__all__ = ["change_body", "original"]

Change = Callable[[Any], Any]


def change_body(document: Any, change: Change, *, leads_into: Callable[[Sequence[str]], bool]) -> Any:
    """Apply `change` to the JSON of a trigger's object, a batch or a response; gives one of the same kind.

    Args:
        document: An HTTP request or response, a message, an event, text, bytes or JSON; a list is several.
        change: From JSON to JSON.
        leads_into: Not needed here.

    Raises:
        ConfigurationError: It holds no JSON.
    """
    document = plain(document)
    if isinstance(document, list):
        return [change_body(item, change, leads_into=leads_into) for item in document]
    if document is None or isinstance(document, dict | bool | int | float):
        return change(document)
    if isinstance(document, str | bytes):
        changed = _encode(change(_decode(document)))
        return changed.encode() if isinstance(document, bytes) else changed
    return _of_azure(document, change)


def _of_azure(document: Any, change: Change) -> Any:
    import azure.functions as func  # noqa: PLC0415 (whoever is called by Azure has it loaded)

    if isinstance(document, func.HttpResponse):
        body = _encode(change(_decode(document.get_body())))
        return func.HttpResponse(
            body, status_code=document.status_code, headers=document.headers, mimetype=document.mimetype
        )
    if isinstance(document, func.HttpRequest):
        return func.HttpRequest(
            document.method,
            document.url,
            headers=document.headers,
            params=document.params,
            route_params=document.route_params,
            body=_encode(change(_decode(document.get_body()))).encode(),
        )
    if isinstance(document, func.QueueMessage | func.EventHubEvent | func.ServiceBusMessage):
        return _Changed(document, _encode(change(_decode(document.get_body()))).encode())
    raise ConfigurationError(
        f"fields of a {type(document).__name__} cannot be changed",
        hint="they are in HTTP requests, messages of queues and Service Bus, and Event Hub events",
    )


def original(value: Any) -> Any:
    """What came, if this is it with a changed body."""
    return object.__getattribute__(value, "_original") if type(value) is _Changed else value


class _Changed:
    """A message or an event with another body; all else is told by the one that came."""

    def __init__(self, original: Any, body: bytes) -> None:
        self._original = original
        self._body = body

    def get_body(self) -> bytes:
        """The body as it was changed."""
        return self._body

    def get_json(self) -> Any:
        """The body as JSON."""
        return json.loads(self._body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __repr__(self) -> str:
        return repr(self._original)

    # Its kind, for whoever asks with `isinstance`.
    __class__ = property(lambda self: type(self._original))


def _decode(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(
            "what came in or goes out is not JSON, though fields of it are to be changed", hint="send JSON"
        ) from None


def _encode(document: Any) -> str:
    # A document that was sealed or redacted as a whole is text already.
    return document if isinstance(document, str) else json.dumps(document, separators=(",", ":"))
