"""The program of a worker process: imports one function and runs it, call by call.

It is started by exec on a clean interpreter (`python -I`), has one socket and its private folder, and
holds nothing worth stealing: no keys, no credentials, only the plaintext of the call in hand.
"""

from __future__ import annotations

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

__all__ = ["serve"]


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


def serve(connection: socket.socket, code: Path) -> NoReturn:
    """Load the code in `code` as the host asks, then answer calls until the host hangs up."""
    channel = Channel(connection, ToWorker)
    loaded: Prepared | None = None
    logs = Logs(channel)
    _listeners.append(lambda done, total: channel.send(Progressed(100 * done // max(total, 1))))
    try:
        while True:
            frame = channel.receive()
            reply: msgspec.Struct
            debug = isinstance(frame, Call) and frame.debug
            # BaseException: SystemExit and KeyboardInterrupt of tenant code are failures of a call too.
            try:
                if isinstance(frame, Load):
                    loaded, reply = _load(frame, code, channel, logs)
                elif isinstance(frame, Call) and loaded is not None:
                    with logs.of_one_call():
                        reply = Returned(loaded(frame.inputs))
                else:
                    break
                channel.send(reply)
            except BaseException as error:  # noqa: BLE001 - only its class leaves
                detail = describe_failure(error) if debug else ""
                channel.send(Failed(type(error).__name__[:64], detail))
                # The error's frames hold the call's plaintext.
                del error
    except ChannelError:
        pass
    # Without atexit handlers, which are tenant code by now.
    os._exit(0)


def _load(frame: Load, code: Path, channel: Channel, logs: Logs) -> tuple[Prepared, Loaded]:
    notes = look_at(code) if frame.check else []
    sys.path.insert(0, str(code))
    module_name, _, attribute = frame.entrypoint.partition(":")
    implementation = getattr(import_module(module_name), attribute)
    declared = declaration_of(implementation)
    if declared is None:
        raise LookupError
    manifest = declared.manifest(implementation, frame.settings)
    if manifest.logs is not None:
        logs.capture()
    loaded = Prepared(implementation, channel)
    # What is loaded stays; keeping the collector away from it makes calls steadier.
    gc.collect()
    gc.freeze()
    return loaded, Loaded(manifest.canonical(), notes)
