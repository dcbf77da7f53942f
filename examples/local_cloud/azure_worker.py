"""The process that runs an Azure Functions app; started by `azure_functions`, never imported.

    python azure_worker.py <socket descriptor> <app directory>

It speaks lines of JSON on the inherited socket: first what it found in the app, then one answer for
every invocation, in any order. Where Microsoft's `azure-functions-runtime` is installed it indexes
and invokes the app, with plain objects in place of the gRPC messages it exchanges with its host. Where
it is not, the functions are called through the objects of `azure-functions`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import json
import logging
import socket
import sys
import threading
import traceback
import types
import uuid
from typing import Any

import azure.functions as func

try:
    import azure_functions_runtime as runtime
except ImportError:
    runtime = None

Json = dict[str, Any]
KINDS = ("http", "string", "bytes", "json", "collection_string", "collection_bytes")
TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Message:
    """Stands in for a protobuf message: absent fields are None."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        if name[0].isupper():
            raise AttributeError(name)
        return None

    def WhichOneof(self, group: str) -> str | None:  # noqa: N802 - protobuf's name
        """The field of a union that is set."""
        if group == "rpc_data":
            return "data"
        return next((kind for kind in KINDS if kind in self.__dict__), None)


class Messages(types.SimpleNamespace):
    """Stands in for the module of message classes."""

    StatusResult = type("StatusResult", (Message,), {"Success": 1, "Failure": 0})
    BindingInfo = type("BindingInfo", (Message,), {"in": 0, "out": 1, "inout": 2})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        made = type(name, (Message,), {})
        setattr(self, name, made)
        return made


class RuntimeApp:
    """The app under Microsoft's runtime."""

    name = f"azure-functions-runtime on Python {sys.version_info.major}.{sys.version_info.minor}"

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    async def index(self, directory: str) -> list[Json]:
        """Load the app; its functions with their bindings."""
        request = Message(worker_init_request=Message(capabilities={}, function_app_directory=directory))
        properties = {"host": "127.0.0.1", "protos": Messages()}
        answer = await runtime.worker_init_request(Message(request=request, properties=properties))
        if answer.result.status != 1:
            raise RuntimeError(answer.result.exception.message)
        runtime.start_threadpool_executor()
        metadata = await runtime.functions_metadata_request(Message())
        found = metadata.function_metadata_results or ()
        self._ids = {function.name: function.function_id for function in found}
        for function_id in self._ids.values():
            request = Message(function_load_request=Message(function_id=function_id))
            await runtime.function_load_request(Message(request=request))
        return [
            {"name": function.name, "bindings": [json.loads(binding) for binding in function.raw_bindings]}
            for function in found
        ]

    async def invoke(self, call: Json) -> Json:
        """Run one function, triggered by HTTP or by data of another kind."""
        answer = await self._run(call, _typed(call["data"]) if "data" in call else self._request(call))
        if answer.result.status != 1:
            failure = answer.result.exception
            return {"failure": {"message": failure.message, "stack": failure.stack_trace}}
        if "data" in call:
            return {"returned": _untyped(answer.return_value)}
        response = answer.return_value.http
        fields = vars(response.body) if response.body else {}
        body = fields.get("bytes") or (fields.get("string") or fields.get("json") or "").encode()
        return _answer(int(response.status_code), dict(response.headers), body)

    @staticmethod
    def _request(call: Json) -> Message:
        http = Message(
            method=call["method"],
            url=call["url"],
            headers=call["headers"],
            params=call["params"],
            query=call["query"],
            body=Message(bytes=base64.b64decode(call["body"])),
        )
        return Message(http=http)

    async def _run(self, call: Json, data: Message) -> Any:
        invocation = Message(
            invocation_id=str(uuid.uuid4()),
            function_id=self._ids[call["function"]],
            input_data=[Message(name=call["argument"], data=data)],
            trigger_metadata={name: _typed(value) for name, value in call.get("metadata", {}).items()},
            trace_context=Message(trace_parent=TRACE_PARENT, trace_state="", attributes={}),
            retry_context=Message(retry_count=0, max_retry_count=0),
        )
        return await runtime.invocation_request(Message(request=Message(invocation_request=invocation)))


def _typed(value: Json) -> Message:
    """What came as JSON as the message that Azure's host sends; bytes came in base64."""
    ((kind, content),) = value.items()
    if kind == "bytes":
        return Message(bytes=base64.b64decode(content))
    if kind == "collection_bytes":
        return Message(collection_bytes=Message(bytes=[base64.b64decode(item) for item in content]))
    if kind == "collection_string":
        return Message(collection_string=Message(string=content))
    return Message(**value)


def _untyped(value: Any) -> Any:
    if value is None:
        return None
    ((kind, content),) = vars(value).items()
    return {kind: base64.b64encode(content).decode() if kind == "bytes" else content}


class DirectContext(func.Context):
    """What a function may ask about its invocation."""

    def __init__(self, name: str, directory: str) -> None:
        self._name = name
        self._directory = directory
        self._id = str(uuid.uuid4())

    @property
    def invocation_id(self) -> str:
        """A random id."""
        return self._id

    @property
    def function_name(self) -> str:
        """The function's name."""
        return self._name

    @property
    def function_directory(self) -> str:
        """The app's folder."""
        return self._directory

    @property
    def thread_local_storage(self) -> Any:
        """Where the runtime keeps the id for the function's own threads."""
        return threading.local()

    @property
    def trace_context(self) -> Any:
        """None; there is no tracing here."""
        return None

    @property
    def retry_context(self) -> Any:
        """None; nothing is retried here."""
        return None


class DirectApp:
    """The app called through the objects of `azure-functions`, without its runtime."""

    name = f"azure-functions objects on Python {sys.version_info.major}.{sys.version_info.minor}"

    def __init__(self) -> None:
        self._functions: dict[str, Any] = {}
        self._directory = ""

    async def index(self, directory: str) -> list[Json]:
        """Load the app; its functions with their bindings."""
        self._directory = directory
        module = importlib.import_module("function_app")
        (app,) = (value for value in vars(module).values() if isinstance(value, func.FunctionRegister))
        found = app.get_functions()
        self._functions = {
            str(function.get_function_name()): function.get_user_function() for function in found
        }
        return [
            {
                "name": function.get_function_name(),
                "bindings": [json.loads(binding) for binding in function.get_raw_bindings()],
            }
            for function in found
        ]

    async def invoke(self, call: Json) -> Json:
        """Run one HTTP-triggered function."""
        if "data" in call:
            failure = "other triggers than HTTP need Microsoft's runtime"
            return {"failure": {"message": failure, "stack": ""}}
        function = self._functions[call["function"]]
        arguments: Json = {
            call["argument"]: func.HttpRequest(
                method=call["method"],
                url=call["url"],
                headers=call["headers"],
                params=call["query"],
                route_params=call["params"],
                body=base64.b64decode(call["body"]),
            )
        }
        if "context" in inspect.signature(function).parameters:
            arguments["context"] = DirectContext(call["function"], self._directory)
        try:
            if inspect.iscoroutinefunction(function):
                response = await function(**arguments)
            else:
                response = await asyncio.to_thread(function, **arguments)
        except Exception as error:  # noqa: BLE001 - whatever the app raises is its answer
            return {
                "failure": {"message": f"{type(error).__name__}: {error}", "stack": traceback.format_exc()}
            }
        if isinstance(response, str):
            response = func.HttpResponse(response)
        headers = {"Content-Type": f"{response.mimetype}; charset={response.charset}", **response.headers}
        return _answer(response.status_code, headers, response.get_body())


def _answer(status: int, headers: dict[str, str], body: bytes) -> Json:
    return {"status": status, "headers": headers, "body": base64.b64encode(body).decode()}


async def serve(connection: socket.socket, directory: str) -> None:
    """Answer invocations until the other side closes the connection."""
    app = RuntimeApp() if runtime else DirectApp()
    reader, writer = await asyncio.open_connection(sock=connection, limit=256 * 1024 * 1024)

    def send(message: Json) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    async def answer(call: Json) -> None:
        send({"id": call["id"], **await app.invoke(call)})

    try:
        send({"runtime": app.name, "functions": await app.index(directory)})
    except Exception as error:  # noqa: BLE001 - reported to the parent, which raises
        send({"failure": f"{type(error).__name__}: {error}"})
        await writer.drain()
        return
    tasks = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def main() -> None:
    """Run the app named on the command line."""
    descriptor, directory = int(sys.argv[1]), sys.argv[2]
    logging.basicConfig(level=logging.INFO)
    sys.path.insert(0, directory)
    asyncio.run(serve(socket.socket(fileno=descriptor), directory))
    if runtime:
        runtime.stop_threadpool_executor()


if __name__ == "__main__":
    main()
