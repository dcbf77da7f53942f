"""Seal and mask fields of what triggers a function, and of what it returns. Nothing here opens.

Paths begin at the JSON that the trigger brings: `$.ssn` in the body of an HTTP request, a message or an
event, and of each event of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloister.faas.changes import Changes, masking, sealing
from cloister.faas.fields import OnMissing, Sealer
from cloister.mask import View
from cloister_azure.bodies import change_body
from cloister_azure.wrapping import Arguments, Handler, Steps, trigger_of, wrapped

__all__ = ["mask_fields", "seal_fields"]


def seal_fields(
    *,
    event: Mapping[str, str] | None = None,
    response: Mapping[str, str] | None = None,
    context: Mapping[str, str] | None = None,
    on_missing: OnMissing = "refuse",
    client: Sealer | None = None,
) -> Callable[[Handler], Handler]:
    """Seal fields of what triggers a function before it sees them, and of what it returns.

        @app.route(route="customers", methods=["POST"])
        @seal_fields(event={"$.ssn": "ssns"}, context={"customer": "$.customer"})
        def customers(req: func.HttpRequest) -> func.HttpResponse: ...

    Values that already are sealed under the named key stay as they are. It goes below the decorators of
    `azure.functions`.

    Args:
        event: Name of a tenant's key by path in the trigger's JSON.
        response: The same for what the function returns.
        context: What the values are bound to: for each context name, a path that leads to one text in the
            document that is sealed.
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
        through=change_body,
    )
    return lambda handler: _around(handler, changes)


def mask_fields(
    *,
    event: Mapping[str, View] | None = None,
    response: Mapping[str, View] | None = None,
    default: View,
) -> Callable[[Handler], Handler]:
    """Mask fields of what triggers a function before it sees them, and of what it returns.

        @mask_fields(response={"$.ssn": MASKED("***-**-{last:4}")}, default=PLAIN)
        def customers(req: func.HttpRequest) -> func.HttpResponse: ...

    What is no JSON is an error: nothing could say what of it may be seen.

    Args:
        event: Views (`cloister.mask`) by path in the trigger's JSON.
        response: The same for what the function returns.
        default: The view of everything no path names; `DENIED` lets out only what is named.

    Raises:
        ConfigurationError: A path cannot be read, or there is none.
    """
    changes = masking(event=event, response=response, default=default, through=change_body)
    return lambda handler: _around(handler, changes)


def _around(handler: Handler, changes: Changes) -> Handler:
    trigger = trigger_of(handler)
    before, after = changes

    def steps(arguments: Arguments) -> Steps:
        value = arguments[trigger]
        result = yield arguments if before is None else {**arguments, trigger: before(value)}
        return result if after is None or result is None else after(result)

    return wrapped(handler, steps)
