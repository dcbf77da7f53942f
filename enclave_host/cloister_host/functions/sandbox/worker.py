"""The program of a worker process: imports one function and runs it, call by call.

It is started by exec on a clean interpreter (`python -I`), has one socket and its private folder, and
holds nothing worth stealing: no keys, no credentials, only the plaintext of the call in hand.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import json as json_module
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, get_type_hints

import msgspec

from cloister.errors import error_from_code
from cloister.function import Response
from cloister.function.declare import declaration_of
from cloister.function.progress import _listeners
from cloister_host.functions.frames import (
    Answer,
    Ask,
    Call,
    Channel,
    ChannelError,
    Failed,
    Load,
    Loaded,
    Progressed,
    Refusal,
    Returned,
    ToWorker,
)
from cloister_host.functions.sandbox.inspection import describe_failure, look_at
from cloister_host.functions.sandbox.logs import Logs

__all__ = ["Server", "serve"]


class HostOrigin:
    """A declared origin, asked through the host."""

    def __init__(self, channel: Channel, name: str, lock: threading.Lock) -> None:
        self._channel = channel
        self._name = name
        self._lock = lock

    def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Fetch `path`."""
        return self._ask("GET", path, params, headers, b"")

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send `json` or `body` to `path`."""
        if body is None:
            body = json_module.dumps(json).encode()
            headers = {"content-type": "application/json", **(headers or {})}
        return self._ask("POST", path, params, headers, body)

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes,
    ) -> Response:
        with self._lock:
            self._channel.send(Ask(self._name, method, path, dict(params or {}), dict(headers or {}), body))
            answer = self._channel.receive()
        if isinstance(answer, Refusal):
            raise error_from_code(answer.code, answer.message, hint=answer.hint)
        if not isinstance(answer, Answer):
            raise ChannelError("an answer was expected")
        return Response(status=answer.status, headers=answer.headers, body=answer.body)


class Prepared:
    """A function ready to be called with plain values."""

    def __init__(self, implementation: Callable[..., Any], channel: Channel) -> None:
        self._implementation = implementation
        hints = get_type_hints(implementation)
        lock = threading.Lock()
        self._types: dict[str, Any] = {}
        self._origins: dict[str, HostOrigin] = {}
        for name, parameter in inspect.signature(implementation).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                self._origins[name] = HostOrigin(channel, name, lock)
            else:
                self._types[name] = hints[name]

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """Give the inputs their declared types, call, and take the result apart again."""
        typed = {name: msgspec.convert(value, self._types[name]) for name, value in inputs.items()}
        result = self._implementation(**typed, **self._origins)
        return msgspec.to_builtins(result, builtin_types=(bytes,), str_keys=True)


class Server:
    """Loads one function and answers calls of it, frame by frame.

    Args:
        channel: To the host.
        code: Folder of the bundle.
    """

    def __init__(self, channel: Channel, code: Path) -> None:
        self._channel = channel
        self._code = code
        self._logs = Logs(channel)
        self._loaded: Prepared | None = None

    def answer(self) -> bool:
        """Answer the next frame; false if the host said something that has no answer."""
        frame = self._channel.receive()
        reply: msgspec.Struct
        number, debug = (frame.number, frame.debug) if isinstance(frame, Call) else (0, False)
        # BaseException: SystemExit and KeyboardInterrupt of tenant code are failures of a call too.
        try:
            if isinstance(frame, Load):
                reply = self._load(frame)
            elif isinstance(frame, Call) and self._loaded is not None:
                with self._logs.of_one_call():
                    reply = Returned(number, self._loaded(frame.inputs))
            else:
                return False
            self._channel.send(reply)
        except BaseException as error:  # noqa: BLE001 - only its class leaves
            detail = describe_failure(error) if debug else ""
            self._channel.send(Failed(number, type(error).__name__[:64], detail))
            # The error's frames hold the call's plaintext.
            del error
        return True

    def _load(self, frame: Load) -> Loaded:
        notes = look_at(self._code) if frame.check else []
        sys.path[:0] = [str(self._code), str(self._code / "site-packages")]
        module_name, _, attribute = frame.entrypoint.partition(":")
        implementation = getattr(_import(module_name, self._code), attribute)
        if frame.logs:
            self._logs.capture()
        manifest = b""
        if frame.check:
            declared = declaration_of(implementation)
            if declared is None:
                raise LookupError
            manifest = declared.manifest(implementation, frame.settings).canonical()
        self._loaded = Prepared(implementation, self._channel)
        # What is loaded stays; keeping the collector away from it makes calls steadier.
        gc.freeze()
        return Loaded(manifest, notes)


def serve(connection: socket.socket, code: Path) -> NoReturn:
    """Load the code in `code` as the host asks, then answer calls until the host hangs up."""
    channel = Channel(connection, ToWorker)
    server = Server(channel, code)
    _listeners.append(lambda done, total: channel.send(Progressed(100 * done // max(total, 1))))
    with contextlib.suppress(ChannelError):
        while server.answer():
            pass
    # Without atexit handlers, which are tenant code by now.
    os._exit(0)


def _import(name: str, code: Path) -> ModuleType:
    """Import the function's module; a plain file without the import system, which touches far more memory."""
    path = code / f"{name}.py"
    if "." in name or not path.is_file():
        return import_module(name)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what this process is for
    return module
