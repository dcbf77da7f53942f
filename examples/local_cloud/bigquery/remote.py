"""Remote functions: BigQuery's side of the contract, over real HTTP.

Requests are batched, retried and limited as documented, and may be sent twice on purpose: BigQuery says
that a request can be repeated even after it succeeded, so endpoints have to bear it.

Source: https://cloud.google.com/bigquery/docs/remote-functions
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import requests

from local_cloud.bigquery.errors import ApiError
from local_cloud.bigquery.types import STANDARD_NAMES, Field

__all__ = ["RecordedRequest", "RemoteCaller", "RemoteFunction"]

RETRIED_STATUSES = frozenset({408, 429, 500, 503, 504})
MAX_RETRIES = 20
MAX_ROW_BYTES = 5 * 1024 * 1024
MAX_RESPONSE_BYTES = 15 * 1024 * 1024
MAX_CONTEXT_BYTES = 8 * 1024
MAX_MESSAGE_CHARS = 1024
TIMEOUT_SECONDS = 20 * 60

Authorize = Callable[[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFunction:
    """A routine whose rows are computed by an HTTP endpoint."""

    dataset: str
    name: str
    endpoint: str
    connection: str
    arguments: tuple[Field, ...]
    returns: Field
    max_batching_rows: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for typed in (*self.arguments, self.returns):
            if typed.kind == "STRUCT" or typed.repeated:
                raise ApiError(400, "invalid", f"remote functions take no {typed.kind} in {typed.name}")
        if not self.endpoint.startswith(("https://", "http://127.0.0.1:")):
            raise ApiError(400, "invalid", "the endpoint of a remote function is an https URL")
        if sum(len(name) + len(value) for name, value in self.context.items()) >= MAX_CONTEXT_BYTES:
            raise ApiError(400, "invalid", "user_defined_context is limited to 8 KB")

    @classmethod
    def from_rest(cls, resource: Mapping[str, Any]) -> Self:
        """Read a `Routine`."""
        reference, options = resource["routineReference"], resource["remoteFunctionOptions"]
        rows = int(options.get("maxBatchingRows") or 0)
        return cls(
            dataset=reference["datasetId"],
            name=reference["routineId"],
            endpoint=options["endpoint"],
            connection=options["connection"],
            arguments=tuple(
                _typed(argument.get("name", ""), argument["dataType"])
                for argument in resource.get("arguments", ())
            ),
            returns=_typed("the result", resource["returnType"]),
            max_batching_rows=rows or None,
            context=options.get("userDefinedContext") or {},
        )

    def to_rest(self, project: str) -> dict[str, Any]:
        """Write a `Routine`."""
        options: dict[str, Any] = {"endpoint": self.endpoint, "connection": self.connection}
        if self.max_batching_rows:
            options["maxBatchingRows"] = str(self.max_batching_rows)
        if self.context:
            options["userDefinedContext"] = dict(self.context)
        return {
            "routineReference": {"projectId": project, "datasetId": self.dataset, "routineId": self.name},
            "routineType": "SCALAR_FUNCTION",
            "arguments": [
                {"name": argument.name, "dataType": {"typeKind": argument.kind}}
                for argument in self.arguments
            ],
            "returnType": {"typeKind": self.returns.kind},
            "remoteFunctionOptions": options,
        }


def _typed(name: str, data_type: Mapping[str, Any]) -> Field:
    kind = data_type["typeKind"].upper()
    if kind == "ARRAY":
        return Field(name=name, kind=data_type["arrayElementType"]["typeKind"], repeated=True)
    return Field(name=name, kind=STANDARD_NAMES.get(kind, kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request that was sent to an endpoint, and the status it got; 0 where none came back."""

    function: str
    body: Mapping[str, Any]
    status: int


@dataclass(slots=True, kw_only=True)
class RemoteCaller:
    """Calls endpoints the way BigQuery does.

    Attributes:
        authorize: Headers for a call, from endpoint and connection; BigQuery itself sends an identity
            token of the connection's service account.
        ca_file: The certificate authority of https endpoints; None is the system's.
        repeat_requests: Send every successful request a second time and use the second answer.
        retry_delay_seconds: Before the first retry; doubles, up to ten times as much.
        sent: Every request, in order.
    """

    project: str
    session_user: str
    authorize: Authorize = lambda _endpoint, _connection: {}
    ca_file: str | None = None
    repeat_requests: bool = False
    retry_delay_seconds: float = 0.005
    sent: list[RecordedRequest] = field(default_factory=list)

    def call(
        self, function: RemoteFunction, rows: Sequence[Sequence[Any]], *, job_id: str, batched: bool
    ) -> list[Any]:
        """Compute one value for every row.

        Raises:
            ApiError: The endpoint refused, broke the contract or stayed unavailable.
        """
        calls = [
            [argument.wire(value) for argument, value in zip(function.arguments, row, strict=True)]
            for row in rows
        ]
        if any(len(json.dumps(call)) > MAX_ROW_BYTES for call in calls):
            raise _failed("the arguments of one row exceed 5 MB")
        size = (function.max_batching_rows or len(calls)) if batched else 1
        with requests.Session() as session:
            session.trust_env = False
            return [
                function.returns.decode(reply)
                for start in range(0, len(calls), size)
                for reply in self._send(session, function, calls[start : start + size], job_id)
            ]

    def _send(
        self, session: requests.Session, function: RemoteFunction, calls: list[list[Any]], job_id: str
    ) -> list[Any]:
        body = {
            "requestId": uuid.uuid4().hex,
            "caller": f"//bigquery.googleapis.com/projects/{self.project}/jobs/{self.project}:US.{job_id}",
            "sessionUser": self.session_user,
            **({"userDefinedContext": dict(function.context)} if function.context else {}),
            "calls": calls,
        }
        replies = self._send_until_answered(session, function, body)
        if self.repeat_requests:
            replies = self._send_until_answered(session, function, body)
        return replies

    def _send_until_answered(
        self, session: requests.Session, function: RemoteFunction, body: dict[str, Any]
    ) -> list[Any]:
        status, content = 0, b""
        for delay in self._delays():
            time.sleep(delay)
            status, content = self._post(session, function, body)
            name = f"{function.dataset}.{function.name}"
            self.sent.append(RecordedRequest(function=name, body=body, status=status))
            if status and status not in RETRIED_STATUSES:
                break
        return _replies(status, content, expected=len(body["calls"]))

    def _delays(self) -> Iterator[float]:
        yield 0
        for attempt in range(MAX_RETRIES):
            yield self.retry_delay_seconds * min(2**attempt, 10)

    def _post(
        self, session: requests.Session, function: RemoteFunction, body: dict[str, Any]
    ) -> tuple[int, bytes]:
        try:
            response = session.post(
                function.endpoint,
                json=body,
                headers=self.authorize(function.endpoint, function.connection),
                timeout=TIMEOUT_SECONDS,
                verify=self.ca_file or True,
                allow_redirects=False,
            )
        except requests.RequestException:
            return 0, b""
        return response.status_code, response.content


def _replies(status: int, content: bytes, *, expected: int) -> list[Any]:
    if len(content) > MAX_RESPONSE_BYTES:
        raise _failed("the response exceeds 15 MB")
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if status != requests.codes.ok:
        message = answer.get("errorMessage", "") if isinstance(answer, dict) else ""
        raise _failed(f"response code {status}: {str(message)[:MAX_MESSAGE_CHARS]}")
    replies = answer.get("replies") if isinstance(answer, dict) else None
    if not isinstance(replies, list):
        raise _failed("the response holds no array of replies")
    if len(replies) != expected:
        raise _failed(f"{len(replies)} replies for {expected} calls")
    return replies


def _failed(why: str) -> ApiError:
    return ApiError(400, "invalidQuery", f"Failed to call the remote function endpoint: {why}")
