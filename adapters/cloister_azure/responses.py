"""Results in the shape that a trigger's output wants: an HTTP response, or JSON as text for `$return`."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cloister.envelope import Sealed
from cloister.errors import CloisterError
from cloister.faas import answers
from cloister.faas.answers import content_type, plain

if TYPE_CHECKING:
    import azure.functions as func

__all__ = ["http_response", "output", "problem"]


def http_response(result: Any) -> func.HttpResponse:
    """A handler's result as an HTTP response; one that it made itself stays as it is."""
    import azure.functions as func  # noqa: PLC0415 (whoever is called by Azure has it loaded)

    if isinstance(result, func.HttpResponse):
        return result
    result = plain(result)
    if result is None:
        return func.HttpResponse(status_code=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    return _response(HTTPStatus.OK, content_type(result), result)


def output(result: Any) -> Any:
    """A handler's result for an output binding: text, bytes and the binding's own objects stay, JSON is text.

    None stays None, which is all that a function without `$return` may give.
    """
    result = plain(result)
    if isinstance(result, Sealed):
        return str(result)
    is_json = isinstance(result, dict | bool | int | float)
    if isinstance(result, list):
        # A list is several messages.
        return [output(item) for item in result]
    return json.dumps(result, ensure_ascii=False) if is_json else result


def problem(error: CloisterError) -> func.HttpResponse:
    """An error of Cloister as an HTTP response (RFC 9457)."""
    status, document = answers.problem(error)
    return _response(status, answers.PROBLEM_TYPE, document)


def _response(status: int, kind: str, body: Any) -> func.HttpResponse:
    import azure.functions as func  # noqa: PLC0415 (as above)

    raw = body if isinstance(body, bytes | str) else json.dumps(body, ensure_ascii=False)
    mimetype = kind.partition(";")[0]
    return func.HttpResponse(
        raw, status_code=int(status), mimetype=mimetype, headers={"Cache-Control": "no-store"}
    )
