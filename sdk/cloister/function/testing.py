"""For tests of confidential functions: an origin that answers from a table."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from typing import Any

from cloister.errors import UnavailableError
from cloister.function.egress import Response

__all__ = ["FakeOrigin"]


class FakeOrigin:
    """An `Origin` that answers from a table and keeps what it was asked.

    Args:
        answers: "GET /path" to a Response, or to anything JSON for status 200. What is not in the table
            raises UnavailableError, as an origin that is down would.

    Attributes:
        calls: Each request as (method, path, params, body).
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = dict(answers)
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []

    def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Answer "GET path"."""
        del headers
        return self._answer("GET", path, params, b"")

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Answer "POST path"."""
        del headers
        return self._answer("POST", path, params, json_module.dumps(json).encode() if body is None else body)

    def _answer(self, method: str, path: str, params: Mapping[str, str] | None, body: bytes) -> Response:
        self.calls.append((method, path, dict(params or {}), body))
        if f"{method} {path}" not in self._answers:
            raise UnavailableError(
                "the origin did not answer", hint=f"add {method + ' ' + path!r} to the FakeOrigin"
            )
        answer = self._answers[f"{method} {path}"]
        if isinstance(answer, Response):
            return answer
        return Response(
            status=200, headers={"content-type": "application/json"}, body=json_module.dumps(answer).encode()
        )
