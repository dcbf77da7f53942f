"""Results in the shape that each event source wants.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html,
https://docs.aws.amazon.com/lambda/latest/dg/example_serverless_SQS_Lambda_batch_item_failures_section.html
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from cloister.envelope import Sealed
from cloister.errors import (
    AttestationError,
    CloisterError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    IdentityError,
    LimitError,
    OpenError,
    UnavailableError,
)
from cloister_aws.events import BATCHED, HTTP, Source

__all__ = ["plain", "problem", "shaped"]

# What the caller of the Lambda function is told. An error in how this function is set up is ours, not theirs.
_STATUS: Final[dict[type[CloisterError], int]] = {
    OpenError: 400,
    DeniedError: 403,
    LimitError: 413,
    FunctionError: 422,
    ConfigurationError: 500,
    IdentityError: 500,
    AttestationError: 503,
    UnavailableError: 503,
}
_OCTETS: Final = "application/octet-stream"
_JSON: Final = "application/json"


def shaped(source: Source, event: Any, result: Any) -> Any:
    """A handler's result as its event source wants it.

    Args:
        source: Where the event came from.
        event: The event.
        result: What the handler returned. Where it already has the shape (`statusCode`,
            `batchItemFailures`) it stays; a `Reply` becomes its value and the id of its receipt.
    """
    result = plain(result)
    if source in HTTP:
        return _response(source, event, result)
    if source in BATCHED:
        is_shaped = isinstance(result, Mapping) and ("batchItemFailures" in result or "window" in event)
        # Anything else means to Lambda what an empty list means: the whole batch succeeded. The `state` of a
        # tumbling window is kept.
        return {"batchItemFailures": [], **result} if is_shaped else {"batchItemFailures": []}
    return result


def problem(source: Source, event: Any, error: CloisterError) -> dict[str, Any]:
    """An error as an HTTP response (RFC 9457); it carries no data, as no error of Cloister does."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    body = {
        "type": f"urn:cloister:error:{error.code}",
        "title": HTTPStatus(status).phrase if is_ours else str(error.args[0]),
        "status": status,
        "code": error.code,
        "retryable": error.retryable,
    }
    headers = {"content-type": "application/problem+json"}
    return _response(source, event, {"statusCode": status, "headers": headers, "body": json.dumps(body)})


def plain(result: Any) -> Any:
    """A `Reply` as JSON: value and receipt; anything else as it is."""
    from cloister.reply import BatchReply, Reply  # noqa: PLC0415 (loaded by the call that gave one)

    if isinstance(result, Reply):
        out = {"value": result.value, "receipt": result.receipt.id}
        return out if result.delivery_id is None else {**out, "delivery_id": result.delivery_id}
    if isinstance(result, BatchReply):
        errors = {str(row): code for row, code in result.errors.items()}
        return {"values": result.values, "errors": errors, "receipt": result.receipt.id}
    return result


def _response(source: Source, event: Any, result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping) and _is_status(result.get("statusCode")):
        response = dict(result)
        body = plain(response.get("body"))
        if not isinstance(body, str):
            given = response.get("headers") or {}
            known = {str(name).lower() for name in given}
            defaults = {name: value for name, value in _content(body).items() if name not in known}
            response.update(_body(body), headers={**defaults, **given})
    else:
        status = HTTPStatus.NO_CONTENT if result is None else HTTPStatus.OK
        response = {"statusCode": int(status), "headers": _content(result), **_body(result)}
    response.setdefault("isBase64Encoded", False)
    response["statusCode"] = int(response["statusCode"])
    if source is Source.LOAD_BALANCER:
        response.setdefault("statusDescription", _description(response["statusCode"]))
        if "multiValueHeaders" in event:  # the target group has them on, and ignores `headers`
            several = {name: [str(value)] for name, value in (response.get("headers") or {}).items()}
            response["multiValueHeaders"] = {**several, **(response.get("multiValueHeaders") or {})}
    return response


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599  # noqa: PLR2004


def _content(body: Any) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if body is None:
        return headers
    kind = _JSON
    if isinstance(body, bytes):
        kind = _OCTETS
    elif isinstance(body, Sealed):
        kind = "application/jose"
    elif isinstance(body, str):
        kind = "text/plain; charset=utf-8"
    return {**headers, "content-type": kind}


def _body(body: Any) -> dict[str, Any]:
    if isinstance(body, bytes):
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    if body is None or isinstance(body, str):
        return {"body": body or "", "isBase64Encoded": False}
    return {"body": json.dumps(body, ensure_ascii=False, separators=(",", ":")), "isBase64Encoded": False}


def _description(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
