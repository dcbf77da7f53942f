"""AWS Lambda on this machine: the real `awslambdaric` behind a Lambda Runtime API.

    with LambdaRuntime("app.handler", directory=Path("function")) as function:
        result = function.invoke({"bucket": "uploads"})

Everything the runtime sends to the service is kept in `posts`, so that a test can search it for what
must not be there.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local_cloud.http_server import HttpServer, Request, Response, json_response
from local_cloud.process import Process, clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["InvocationError", "InvocationResult", "LambdaRuntime", "Post"]

API = "/2018-06-01/runtime"
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
TRACE = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One message from the runtime to the service."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationError:
    """What the caller of a failed invocation gets to see, and what the service was told.

    Attributes:
        body: The decoded error document: `errorMessage`, `errorType`, `stackTrace`.
        headers: The headers of the runtime's message; X-Ray's cause is one of them.
    """

    type: str
    message: str
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationResult:
    """The outcome of one invocation: a payload or an error, and the log lines written meanwhile."""

    payload: Any = None
    error: InvocationError | None = None
    logs: str = ""


class LambdaRuntime:
    """One function with one execution environment, started by the first invocation.

    Args:
        handler: "module.function".
        directory: The unpacked deployment package.
        environment: The function's environment variables.
        python: The interpreter; it must have `awslambdaric`.
        name: The function's name.
        timeout_seconds: As configured for the function; past it the environment is killed, as on AWS.
    """

    def __init__(
        self,
        handler: str,
        *,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        python: Path = Path(sys.executable),
        name: str = "function",
        timeout_seconds: float = 30,
    ) -> None:
        self.name = name
        self._command: list[str | Path] = [python, "-m", "awslambdaric", handler]
        self._directory = directory
        self._environment = clean_environment(
            {
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_LAMBDA_FUNCTION_NAME": name,
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                "AWS_LAMBDA_LOG_FORMAT": "JSON",
                "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
                "LAMBDA_TASK_ROOT": str(directory),
                "_HANDLER": handler,
                "TZ": ":UTC",
                **(environment or {}),
            }
        )
        self._timeout_seconds = timeout_seconds
        self._sandbox: _Sandbox | None = None
        self._ended_logs = ""
        self._lock = threading.Lock()
        self.posts: list[Post] = []

    @property
    def logs(self) -> str:
        """Everything the function and its runtime have written to the log."""
        return self._ended_logs + (self._sandbox.process.output if self._sandbox else "")

    @property
    def pid(self) -> int | None:
        """The process of the execution environment, if there is one now."""
        return self._sandbox.process.pid if self._sandbox else None

    def invoke(self, event: Any, *, context: Mapping[str, Any] | None = None) -> InvocationResult:
        """Invoke the function with a JSON event and an optional client context.

        Raises:
            ValueError: The event is larger than Lambda accepts.
        """
        body = json.dumps(event).encode()
        if len(body) > MAX_PAYLOAD_BYTES:
            raise ValueError("the event is larger than 6 MB")
        with self._lock:
            sandbox = self._sandbox = self._sandbox or self._start()
            before = len(self.logs)
            payload, error = sandbox.run(body, context=context, timeout_seconds=self._timeout_seconds)
            logs = self.logs[before:]
            if sandbox.is_spent:
                self._end_sandbox()
        return InvocationResult(payload=payload, error=error, logs=logs)

    def close(self) -> None:
        """Stop the execution environment."""
        with self._lock:
            self._end_sandbox()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Sandbox:
        arn = f"arn:aws:lambda:us-east-1:123456789012:function:{self.name}"
        return _Sandbox(self._command, self._directory, self._environment, arn=arn, posts=self.posts)

    def _end_sandbox(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._ended_logs += self._sandbox.process.output
            self._sandbox = None


_Outcome = tuple[Any, InvocationError | None]


class _Sandbox:
    """One runtime process and the API it polls; a new process gets a new API."""

    def __init__(
        self,
        command: list[str | Path],
        directory: Path,
        environment: Mapping[str, str],
        *,
        arn: str,
        posts: list[Post],
    ) -> None:
        self.is_spent = False
        self._arn = arn
        self._posts = posts
        self._events: queue.SimpleQueue[Response | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._server = HttpServer(self._serve)
        api = self._server.url.removeprefix("http://")
        self.process = Process(
            command, directory=directory, environment={**environment, "AWS_LAMBDA_RUNTIME_API": api}
        )

    def run(self, body: bytes, *, context: Mapping[str, Any] | None, timeout_seconds: float) -> _Outcome:
        self._events.put(self._next(body, context, timeout_seconds))
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            running = self.process.is_running
            try:
                return self._outcomes.get(timeout=0.05)
            except queue.Empty:
                if not running:
                    return self._fail("Runtime.ExitError", "the runtime exited without an answer")
        return self._fail("Sandbox.Timedout", f"the function timed out after {timeout_seconds} seconds")

    def close(self) -> None:
        self.process.stop()
        self._events.put(None)
        self._server.close()

    def _fail(self, kind: str, message: str) -> _Outcome:
        self.is_spent = True
        return None, InvocationError(type=kind, message=message)

    def _next(self, body: bytes, context: Mapping[str, Any] | None, timeout_seconds: float) -> Response:
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout_seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self._arn,
            "Lambda-Runtime-Trace-Id": TRACE,
        }
        if context is not None:
            headers["Lambda-Runtime-Client-Context"] = json.dumps(context)
        return Response(headers=headers, body=body)

    def _serve(self, request: Request) -> Response:
        if request.method == "GET" and request.path == f"{API}/invocation/next":
            return self._events.get() or Response(status=500)
        if request.method == "GET" and request.path == f"{API}/restore/next":
            return json_response({"status": "OK"})  # a snapshot was taken, and this is its copy
        self._posts.append(Post(path=request.path, headers=request.headers, body=request.body))
        kind = request.path.rsplit("/", 1)[-1]
        if kind == "response":
            return self._take_response(request)
        if kind == "error":
            self.is_spent = self.is_spent or not request.path.startswith(f"{API}/invocation/")
            self._outcomes.put((None, _reported(request)))
            return json_response({"status": "OK"}, status=202)
        return json_response({"errorType": "InvalidPath"}, status=404)

    def _take_response(self, request: Request) -> Response:
        if len(request.body) > MAX_PAYLOAD_BYTES:
            error = InvocationError(
                type="Function.ResponseSizeTooLarge", message="the response is larger than 6 MB"
            )
            self._outcomes.put((None, error))
            return json_response({"errorType": "RequestEntityTooLarge"}, status=413)
        self._outcomes.put((json.loads(request.body), None))
        return json_response({"status": "OK"}, status=202)


def _reported(request: Request) -> InvocationError:
    body = request.json()
    return InvocationError(
        type=body.get("errorType", ""),
        message=body.get("errorMessage", ""),
        body=body,
        headers=request.headers,
    )
