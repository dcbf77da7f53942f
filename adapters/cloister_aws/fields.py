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

from cloister.faas import scrubbed
from cloister.faas.changes import Changes, masking, sealing
from cloister.faas.fields import OnMissing, Sealer
from cloister.mask import View
from cloister_aws.embedded import change_json

__all__ = ["mask_fields", "seal_fields"]

F = TypeVar("F", bound=Callable[..., Any])


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
    changes = sealing(
        event=event,
        response=response,
        context=context,
        on_missing=on_missing,
        client=client,
        through=change_json,
    )
    return _around(changes)


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
    return _around(masking(event=event, response=response, default=default, through=change_json))


def _around(changes: Changes) -> Callable[[F], F]:
    """Change the first argument and the result of a handler; nothing it raises carries data."""
    before, after = changes

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
