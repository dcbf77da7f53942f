"""Faithful doubles of what a TEE gives its guests: NSM, configfs-tsm, a software TPM, Google's launcher."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest

from cloister_host.attester.tpm_client import TpmSocket
from support import evidence_builders as make
from support import require

Answer = Callable[[bytes, int], tuple[bytes, bytes]]
"""What a platform answers to report data and privilege level: output and auxiliary blob."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not start")
        time.sleep(0.01)


def nsm(issuer: make.NitroIssuer, **members: Any) -> Callable[[bytes], bytes]:
    """A Nitro security module: CBOR in, CBOR out."""

    def answer(request: bytes) -> bytes:
        fields = cbor2.loads(request)["Attestation"]
        return cbor2.dumps({"Attestation": {"document": issuer.document(members=fields | members)}})

    return answer


@contextmanager
def configfs(folder: Path, provider: str, races: int = 0, answer: Answer | None = None) -> Iterator[Path]:
    """The kernel's report tree under FUSE; `answer` is the platform behind it."""
    require.module("fuse", install="pip install fusepy")
    unmount = require.binary("fusermount", install="install fuse3 and libfuse2")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        require.missing("/dev/fuse", install="run where FUSE may be mounted")
    mount = folder / "report"
    mount.mkdir()
    double = Path(make.__file__).with_name("tsm_double.py")
    with platform(folder / "platform.sock", answer) as address:
        process = subprocess.Popen(
            [sys.executable, double, mount, provider, str(races), address], stderr=subprocess.PIPE, text=True
        )
        try:
            wait_for(lambda: process.poll() is not None or mount.is_mount(), "the configfs double")
            if process.poll() is not None:
                require.missing("a FUSE mount", install=process.communicate()[1][-200:])
            yield mount
            assert not list(mount.iterdir()), "an entry was left behind"
        finally:
            if process.poll() is None:
                subprocess.run([unmount, "-u", mount], check=True)
            process.communicate(timeout=10)


@contextmanager
def platform(path: Path, answer: Answer | None) -> Iterator[str]:
    """Serves `answer` to the configfs double, which is a process of its own."""
    if answer is None:
        yield ""
        return

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = json.loads(self.rfile.readline())
            blobs = answer(bytes.fromhex(request["inblob"]), request["privlevel"])
            self.wfile.write(json.dumps([blob.hex() for blob in blobs]).encode() + b"\n")

    with served(socketserver.ThreadingUnixStreamServer(str(path), Handler)):
        yield str(path)


@contextmanager
def software_tpm(folder: Path) -> Iterator[Callable[[], TpmSocket]]:
    """A real `swtpm`; gives what opens a connection to it."""
    swtpm = require.binary("swtpm", install="install swtpm")
    path = folder / "tpm.sock"
    command = [swtpm, "socket", "--tpm2", "--tpmstate", f"dir={folder}"]
    command += [
        "--server",
        f"type=unixio,path={path}",
        "--ctrl",
        f"type=unixio,path={folder / 'control.sock'}",
    ]
    command += ["--flags", "not-need-init,startup-clear"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(path), "swtpm")
        yield lambda: TpmSocket(path)
    finally:
        process.terminate()
        process.wait(timeout=10)


def answers(path: Path) -> bool:
    try:
        TpmSocket(path).close()
    except OSError:
        return False
    return True


@contextmanager
def launcher(path: Path, answer: Callable[[dict[str, Any]], tuple[int, bytes]]) -> Iterator[None]:
    """The socket of Confidential Space's launcher."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/token"
            status, body = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

        def address_string(self) -> str:
            return "launcher"

    with served(socketserver.ThreadingUnixStreamServer(str(path), Handler)):
        yield


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
