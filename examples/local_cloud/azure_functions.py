"""Azure Functions on this machine: a function app behind HTTPS, with faults to inject.

    with LocalCA() as ca, AzureFunctions(Path("receiver"), ca=ca) as app:
        requests.post(f"{app.url}/api/pins", json={...}, verify=str(ca.pem_path))

The app runs in a process of its own: under Microsoft's runtime where `python -m local_cloud.install
azure` found a Python for it, else through the objects of `azure-functions`; `runtime` says which. An app
that dies is started again by the next request, as on Azure.
"""

from __future__ import annotations

import base64
import enum
import hmac
import json
import queue
import re
import secrets
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local_cloud.http_server import Disconnect, HttpServer, Request, Response, json_response
from local_cloud.install import azure_python
from local_cloud.process import Process, clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from local_cloud.ca import LocalCA

__all__ = ["AzureFunctions", "Fault", "Report", "TriggerFailedError"]

WORKER = Path(__file__).with_name("azure_worker.py")
START_SECONDS = 60
INVOCATION_SECONDS = 230  # Azure's load balancer ends a request then
DELAY_SECONDS = 0.5


class Fault(enum.Enum):
    """What can go wrong between a caller and a function app."""

    SERVER_ERROR = "500, and the function did not run"
    RESET = "the connection is reset, and the function did not run"
    DROP_RESPONSE = "the function ran, and its response is lost"
    DELAY = "the response comes half a second late"
    CRASH = "the app is killed after the function ran; no response"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the runtime told its host about a failed invocation; Application Insights keeps it."""

    function: str
    message: str
    stack: str


class TriggerFailedError(Exception):
    """A function failed that nobody waits for; the runtime's report is its argument."""

    @property
    def report(self) -> Report:
        """What the runtime told its host."""
        report: Report = self.args[0]
        return report


class AzureFunctions:
    """One function app.

    Args:
        directory: The folder with `function_app.py` and, if there is one, `host.json`.
        ca: Issues the certificate.
        environment: The app settings, or what makes them from the app's URL.
        python: The interpreter; by default the best one installed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ca: LocalCA,
        environment: Mapping[str, str] | Callable[[str], Mapping[str, str]] | None = None,
        python: Path | None = None,
    ) -> None:
        self.function_key = secrets.token_urlsafe(32)
        self.reports: list[Report] = []
        self.requests: list[Request] = []
        self._python = python or azure_python() or Path(sys.executable)
        self._directory = directory.resolve()
        self._faults: deque[Fault] = deque()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._ended_logs = ""
        self._routes: list[_Route] = []
        self._server = HttpServer(self._serve, tls=ca.server_context(), host="localhost")
        self.url = self._server.url
        self._environment = clean_environment(environment(self.url) if callable(environment) else environment)
        try:
            self._worker = self._start()
        except BaseException:
            self._server.close()
            raise
        self.runtime = self._worker.runtime
        self._routes = list(_routes(self._worker.functions, _route_prefix(self._directory)))

    @property
    def logs(self) -> str:
        """Everything the app has written."""
        return self._ended_logs + self._worker.process.output

    def fail_next(self, fault: Fault, *, times: int = 1) -> None:
        """Let the next requests fail."""
        self._faults.extend([fault] * times)

    def trigger(
        self, function: str, data: Mapping[str, Any], metadata: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        """Trigger a function as Azure's host does: a message, an event, a blob, a timer.

        Args:
            function: The function's name.
            data: One member, named as in the host's `TypedData`: `string`, `json`, `bytes` in base64,
                `collection_string`, `collection_bytes`.
            metadata: The trigger's metadata, each likewise.

        Returns:
            What it returned to its output binding, likewise; None for nothing.

        Raises:
            TriggerFailedError: It raised.
        """
        worker = self._running_worker()
        bindings = next(found["bindings"] for found in worker.functions if found["name"] == function)
        argument = next(item["name"] for item in bindings if item["type"].lower().endswith("trigger"))
        call = {"function": function, "argument": argument, "data": data, "metadata": metadata or {}}
        answer = worker.call(call)
        if failure := answer.get("failure"):
            report = Report(function=function, **failure)
            self.reports.append(report)
            raise TriggerFailedError(report)
        return answer["returned"]

    @property
    def pid(self) -> int:
        """The process that the app runs in."""
        return self._worker.process.pid

    def kill(self) -> None:
        """End the app at once, in the middle of whatever it does."""
        self._worker.process.kill()

    def close(self) -> None:
        """Stop the app and its front."""
        self._closing.set()
        self._worker.close()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Worker:
        return _Worker(self._python, self._directory, self._environment)

    def _running_worker(self) -> _Worker:
        with self._lock:
            if not self._worker.is_usable and not self._closing.is_set():
                self._worker.close()
                self._ended_logs += self._worker.process.output
                self._worker = self._start()
            return self._worker

    def _serve(self, request: Request) -> Response:
        self.requests.append(request)
        fault = self._faults.popleft() if self._faults else None
        if fault is Fault.SERVER_ERROR:
            return Response(status=500)
        if fault is Fault.RESET:
            raise Disconnect
        response = self._route(request)
        if fault is Fault.CRASH:
            self.kill()
        if fault in {Fault.CRASH, Fault.DROP_RESPONSE}:
            raise Disconnect
        if fault is Fault.DELAY:
            self._closing.wait(DELAY_SECONDS)
        return response

    def _route(self, request: Request) -> Response:
        found = [(route, match) for route in self._routes if (match := route.pattern.fullmatch(request.path))]
        for route, match in found:
            if request.method in route.methods:
                if not (route.is_anonymous or self._has_key(request)):
                    return Response(status=401)
                return self._invoke(route, match.groupdict(default=""), request)
        return Response(status=405 if found else 404)

    def _has_key(self, request: Request) -> bool:
        key = request.headers.get("x-functions-key") or request.query.get("code", "")
        return hmac.compare_digest(key.encode(), self.function_key.encode())

    def _invoke(self, route: _Route, parameters: dict[str, str], request: Request) -> Response:
        try:
            answer = self._running_worker().call(
                {
                    "function": route.function,
                    "argument": route.argument,
                    "method": request.method,
                    "url": self.url + request.target,
                    "headers": dict(request.headers),
                    "params": parameters,
                    "query": dict(request.query),
                    "body": base64.b64encode(request.body).decode(),
                }
            )
        except EOFError:
            return json_response({"title": "The function app ended."}, status=503)
        if failure := answer.get("failure"):
            self.reports.append(Report(function=route.function, **failure))
            return Response(status=500)
        return Response(
            status=answer["status"], headers=answer["headers"], body=base64.b64decode(answer["body"])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    function: str
    argument: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    is_anonymous: bool


ALL_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})


def _routes(functions: Sequence[Mapping[str, Any]], prefix: str) -> list[_Route]:
    return [
        _Route(
            function=function["name"],
            argument=binding["name"],
            pattern=_pattern(prefix + (binding.get("route") or function["name"])),
            methods=frozenset(method.upper() for method in binding.get("methods", ())) or ALL_METHODS,
            is_anonymous=str(binding.get("authLevel", "function")).lower() == "anonymous",
        )
        for function in functions
        for binding in function["bindings"]
        if binding["type"].lower() == "httptrigger"
    ]


def _route_prefix(directory: Path) -> str:
    settings = directory / "host.json"
    found = json.loads(settings.read_text()) if settings.exists() else {}
    prefix = found.get("extensions", {}).get("http", {}).get("routePrefix", "api")
    return f"/{prefix}/" if prefix else "/"


def _pattern(template: str) -> re.Pattern[str]:
    """Compile a route: `{name}`, `{name:constraint}`, `{name?}` and `{*rest}`."""
    pieces = []
    for literal, star, name, optional in re.findall(r"([^{}]+)|\{(\*?)(\w+)(?::[^}?]+)?(\??)\}", template):
        if literal:
            pieces.append(re.escape(literal))
        else:
            pieces.append(f"(?P<{name}>{'.*' if star else '[^/]*' if optional else '[^/]+'})")
    return re.compile("".join(pieces))


class _Worker:
    """The process with the app, and the calls that wait for it."""

    def __init__(self, python: Path, directory: Path, environment: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self.process = Process(
                [python, WORKER, str(theirs.fileno()), str(directory)],
                environment=environment,
                directory=directory,
                pass_fds=[theirs.fileno()],
            )
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._lock = threading.Lock()
        self._last_id = 0
        self._has_ended = False
        self._lines = self._ours.makefile("rb")
        self._ours.settimeout(START_SECONDS)
        hello = json.loads(self._lines.readline() or b"{}")
        self._ours.settimeout(None)
        if "functions" not in hello:
            self._end()
            raise RuntimeError(
                f"the function app did not start: {hello.get('failure')}\n{self.process.output}"
            )
        self.runtime: str = hello["runtime"]
        self.functions: list[dict[str, Any]] = hello["functions"]
        self._reader = threading.Thread(target=self._read, name="function app")
        self._reader.start()

    @property
    def is_usable(self) -> bool:
        """Whether it can answer: neither the process nor its connection has ended."""
        return self.process.is_running and not self._has_ended

    def call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke a function.

        Raises:
            EOFError: The process ended before it answered.
        """
        answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            if self._has_ended:
                raise EOFError
            self._last_id += 1
            call_id = self._last_id
            self._waiting[call_id] = answers
            try:
                self._ours.sendall(json.dumps({"id": call_id, **message}).encode() + b"\n")
            except OSError:
                del self._waiting[call_id]
                raise EOFError from None
        answer = answers.get(timeout=INVOCATION_SECONDS)
        if answer is None:
            raise EOFError
        return answer

    def close(self) -> None:
        self.process.stop()
        self._reader.join()
        self._end()

    def _end(self) -> None:
        self.process.stop()
        self._lines.close()
        self._ours.close()

    def _read(self) -> None:
        try:
            for line in self._lines:
                answer = json.loads(line)
                with self._lock:
                    waiting = self._waiting.pop(answer["id"])
                waiting.put(answer)
        except (OSError, ValueError):
            pass  # a crash can tear the last line; the end is handled alike
        finally:
            with self._lock:
                self._has_ended = True
                for waiting in self._waiting.values():
                    waiting.put(None)
                self._waiting.clear()
