"""Results in the shape that each event source wants.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html,
https://docs.aws.amazon.com/lambda/latest/dg/example_serverless_SQS_Lambda_batch_item_failures_section.html
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from cloister.errors import CloisterError
from cloister.faas import answers
from cloister.faas.answers import content_type, plain
from cloister_aws.events import BATCHED, HTTP, Source

__all__ = ["problem", "shaped"]


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
    """An error as an HTTP response."""
    status, document = answers.problem(error)
    headers = {"content-type": answers.PROBLEM_TYPE}
    return _response(source, event, {"statusCode": status, "headers": headers, "body": json.dumps(document)})


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
    return headers if body is None else {**headers, "content-type": content_type(body)}


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
