"""Seal and mask fields of events and responses. Nothing here opens.

Paths begin at the event, as AWS documents it, and go on into JSON that it carries as text: `$.body.ssn`
for HTTP and SQS records (`$.Records[*].body.ssn`), `$.Records[*].Sns.Message.ssn`,
`$.Records[*].kinesis.data.ssn`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from cloister.errors import ConfigurationError
from cloister.faas import scrubbed, shared_client
from cloister.faas.fields import FieldSealer, OnMissing, Sealer
from cloister.mask import Mask, View
from cloister_aws.embedded import change_json

__all__ = ["mask_fields", "seal_fields"]

F = TypeVar("F", bound=Callable[..., Any])
Change = Callable[[Any], Any]


def seal_fields(
    *,
    event: Mapping[str, str] | None = None,
    response: Mapping[str, str] | None = None,
    context: Mapping[str, str] | None = None,
    on_missing: OnMissing = "refuse",
    client: Sealer | None = None,
) -> Callable[[F], F]:
    """Seal fields of the event before the handler sees it, and of the response before it leaves.

        @seal_fields(event={"$.body.ssn": "ssns"}, context={"customer": "$.body.customer"})
        def handler(event, context): ...

    Values that already are sealed under the named key stay as they are.

    Args:
        event: Name of a tenant's key by path in the event.
        response: The same for what the handler returns.
        context: What the values are bound to: for each context name, a path that leads to one text in
            the document that is sealed. For records, decorate a handler called with `per="record"`.
        on_missing: By default a path that finds nothing is an error, so that none fails to seal because it
            was misspelled.
        client: For tests; by default the process's `cloister.Client`, made from the settings.

    Raises:
        ConfigurationError: A path or a key's name cannot be read, or there is none.
    """
    if not event and not response:
        raise ConfigurationError("there are no fields to seal", hint="give event= or response=")

    def sealing(keys: Mapping[str, str] | None) -> Change | None:
        if not keys:
            return None
        sealer = FieldSealer(keys, context=context, on_missing=on_missing)

        def seal(document: Any) -> Any:
            return sealer.apply(document, client if client is not None else shared_client())

        return lambda document: change_json(document, seal, leads_into=sealer.leads_into)

    return _around(sealing(event), sealing(response))


def mask_fields(
    *,
    event: Mapping[str, View] | None = None,
    response: Mapping[str, View] | None = None,
    default: View,
) -> Callable[[F], F]:
    """Mask fields of the event before the handler sees it, and of the response before it leaves.

        @mask_fields(response={"$.ssn": MASKED("***-**-{last:4}")}, default=PLAIN)
        def handler(event, context): ...

    Text that is no JSON, though a path leads into it, is an error: nothing could say what may be seen.

    Args:
        event: Views (`cloister.mask`) by path in the event.
        response: The same for what the handler returns.
        default: The view of everything no path names; `DENIED` lets out only what is named.

    Raises:
        ConfigurationError: A path cannot be read, or there is none.
    """
    if event is None and response is None:
        raise ConfigurationError("there are no fields to mask", hint="give event= or response=")

    def masking(views: Mapping[str, View] | None) -> Change | None:
        if views is None:
            return None
        mask = Mask(views, default=default)
        return lambda document: change_json(document, mask.apply, leads_into=mask.leads_into)

    return _around(masking(event), masking(response))


def _around(before: Change | None, after: Change | None) -> Callable[[F], F]:
    """Change the first argument and the result of a handler; nothing it raises carries data."""

    def decorate(handler: F) -> F:
        def entering(event: Any) -> Any:
            return event if before is None else before(event)

        def leaving(result: Any) -> Any:
            return result if after is None else after(result)

        if inspect.iscoroutinefunction(handler):

            @wraps(handler)
            async def awaiting(event: Any, *args: Any, **kwargs: Any) -> Any:
                return leaving(await handler(entering(event), *args, **kwargs))

            return cast("F", awaiting)

        @wraps(handler)
        def calling(event: Any, *args: Any, **kwargs: Any) -> Any:
            return scrubbed(lambda: leaving(handler(entering(event), *args, **kwargs)))

        return cast("F", calling)

    return decorate
