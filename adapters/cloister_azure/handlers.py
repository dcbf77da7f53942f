"""The decorator for receivers of deliveries."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from cloister.errors import AttestationError, CloisterError
from cloister.faas import FunctionName
from cloister.logs import error_fields
from cloister_azure.delivery import Delivery, Once, Receiver
from cloister_azure.payload import decoder_for, resolved_hints
from cloister_azure.wrapping import Arguments, Handler, Steps, trigger_of, wrapped

if TYPE_CHECKING:
    import azure.functions as func

__all__ = ["from_enclave"]

log = logging.getLogger("cloister_azure")


def from_enclave(
    function: str,
    *,
    once: Once,
    url: str | None = None,
    digests: Collection[str] = (),
    **settings: Any,
) -> Callable[[Handler], Handler]:
    """Let only calls in that are proven to come from a confidential function, each delivery once.

    The handler is given `delivery`, a keyword-only parameter that the platform does not see. It runs only
    for a delivery that is verified offline and not yet recorded; a repetition is answered 200 without it.

    One effect under timeouts, crashes and repetitions, in one of two ways:

    * The effect is what `delivery.store(content)` writes: effect and record are one conditional write.
    * The effect is elsewhere: make it under `delivery.id` as its idempotency key. The record is written
      after the handler answered with 2xx, so a crash in between runs the handler again.

    A handler that raises, or answers anything but 2xx, leaves no record, and the host sends again.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        once: Where deliveries are recorded, for example `BlobOnce("deliveries")`.
        url: The endpoint's full public URL, where a gateway in front of the app changes paths. By default
            the setting CLOISTER_RECEIVER_URL and the path of the call.
        digests: Digests of the code that is accepted; by default whatever the tenant deployed by that name.
        settings: `tenant`, `policy`, `receiver_url`, where they are not in the app settings.

    Raises:
        ConfigurationError: The name cannot be used, or the handler takes no `delivery`.
    """
    name = FunctionName.parse(function)

    def decorate(handler: Handler) -> Handler:
        request = trigger_of(handler)
        receiver = Receiver(
            name,
            once=once,
            decoder=decoder_for(resolved_hints(handler).get("delivery", Delivery)),
            url=url,
            digests=digests,
            settings=settings,
        )

        def steps(arguments: Arguments) -> Steps:
            delivery = _begin(receiver, arguments[request])
            if not isinstance(delivery, Delivery):
                return delivery
            response = yield {**arguments, "delivery": delivery}
            if _succeeded(response):
                receiver.finish(delivery)
            return response

        return wrapped(handler, steps, hidden="delivery")

    return decorate


def _begin(receiver: Receiver, request: func.HttpRequest) -> Delivery[Any] | func.HttpResponse:
    """The delivery to handle, or the answer to a call that is none or was handled before."""
    try:
        delivery = receiver.begin(request.get_body(), method=request.method, url=request.url)
    except CloisterError as error:
        # The caller is unproven: the reason is for the operator alone.
        log.warning("delivery refused: %s", error, extra=error_fields(error))
        if isinstance(error, AttestationError):
            return _answer(401, {"error": "unverified"})
        return _answer(503 if error.retryable else 500, {"error": error.code})
    return delivery or _answer(200, {"repeated": True})


def _succeeded(response: Any) -> bool:
    """Whether the host will take it as delivered: 2xx, which an answer without a status is."""
    return 200 <= getattr(response, "status_code", 200) < 300  # noqa: PLR2004 (RFC 9110 section 15.3)


def _answer(status: int, document: dict[str, Any]) -> func.HttpResponse:
    import azure.functions as func  # noqa: PLC0415 (whoever is called by Azure has it loaded)

    return func.HttpResponse(json.dumps(document), status_code=status, mimetype="application/json")
