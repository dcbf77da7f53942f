"""What a Cloud Run function was called with: who sent it, and what names it over all its deliveries.

Source: https://github.com/googleapis/google-cloudevents, https://cloud.google.com/pubsub/docs/push,
https://cloud.google.com/functions/1stgendocs/writing/write-event-driven-functions
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cloister.errors import ConfigurationError

__all__ = ["StoredObject", "delivery_of", "is_http", "message_of", "object_of"]

PUBLISHED: Final = "google.cloud.pubsub.topic.v1.messagePublished"
MAX_ID_CHARS: Final = 1024
MAX_PUSH_BYTES: Final = 16 * 1024 * 1024  # of a message: 10 MB, and a third more in base64


class StoredObject(NamedTuple):
    """An object of Cloud Storage that an event is about.

    Attributes:
        bucket: Its bucket.
        name: Its name.
        generation: Which of the objects that had this name.
    """

    bucket: str
    name: str
    generation: int


def is_http(arguments: tuple[Any, ...]) -> bool:
    """Whether a function was called with an HTTP request, and answers it."""
    return len(arguments) == 1 and not _is_cloud_event(arguments[0]) and hasattr(arguments[0], "headers")


def delivery_of(arguments: tuple[Any, ...]) -> tuple[str, ...] | None:
    """What names this delivery, the same when it comes again; None for a plain HTTP request.

    A CloudEvent is named by source and id together, a Pub/Sub message by its subscription and its id, an
    event of the first generation by its id.
    """
    match arguments:
        case (_, context) if hasattr(context, "event_id"):
            return _named("event", getattr(context, "event_type", ""), context.event_id)
        case (event,) if _is_cloud_event(event):
            attributes = event.get_attributes()
            return _named("cloudevent", attributes.get("source"), attributes.get("id"))
        case (request,):
            message = _pushed(request)
            if message is not None:
                found = message["message"].get("messageId") or message["message"].get("message_id")
                return _named("push", message["subscription"], found)
    return None


def message_of(event: Any) -> tuple[bytes, dict[str, str]]:
    """Data and attributes of the Pub/Sub message in a CloudEvent, a push request, or an event's `data`.

    Raises:
        ConfigurationError: There is none in it.
    """
    document: Any = event
    if _is_cloud_event(event):
        document = event.get_data()
    elif hasattr(event, "headers"):
        document = _pushed(event)
    message: Any = document.get("message", document) if isinstance(document, Mapping) else None
    try:
        data = base64.b64decode(message.get("data", ""), validate=True)
        attributes = dict(message.get("attributes") or {})
    except (TypeError, ValueError, AttributeError, binascii.Error):
        raise ConfigurationError("the event carries no Pub/Sub message") from None
    return data, attributes


def object_of(event: Any) -> StoredObject:
    """The object that an event of Cloud Storage is about (`google.cloud.storage.object.v1.*`).

    Args:
        event: The CloudEvent, or its data.

    Raises:
        ConfigurationError: It is about none.
    """
    document = event.get_data() if _is_cloud_event(event) else event
    try:
        bucket, name, generation = document["bucket"], document["name"], int(document["generation"])
    except (TypeError, KeyError, ValueError):
        raise ConfigurationError("the event is about no object of Cloud Storage") from None
    if not isinstance(bucket, str) or not isinstance(name, str):
        raise ConfigurationError("the event is about no object of Cloud Storage")
    return StoredObject(bucket, name, generation)


def _is_cloud_event(value: Any) -> bool:
    """By what it can do: several versions of the CloudEvents SDK have each a class of their own."""
    return hasattr(value, "get_attributes") and hasattr(value, "get_data")


def _pushed(request: Any) -> dict[str, Any] | None:
    """The envelope of a push subscription, if that is what an HTTP request is."""
    headers = getattr(request, "headers", None)
    length = getattr(request, "content_length", None) or 0
    if headers is None or getattr(request, "method", "") != "POST" or length > MAX_PUSH_BYTES:
        return None
    document = request.get_json(silent=True) if getattr(request, "is_json", False) else None
    if not isinstance(document, dict) or not isinstance(document.get("subscription"), str):
        return None
    return document if isinstance(document.get("message"), dict) else None


def _named(kind: str, *parts: Any) -> tuple[str, ...] | None:
    """A name of texts, none of them empty; anything else names nothing."""
    texts = [part for part in parts if isinstance(part, str) and 0 < len(part) <= MAX_ID_CHARS]
    return (kind, *texts) if len(texts) == len(parts) else None
