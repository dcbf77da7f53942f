"""`cloister witness`: cosign somebody's audit log, so that it cannot be rolled back or shown in two forms."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister import jose
from cloister._cli._client import write_private
from cloister.client import Client
from cloister.errors import ConfigurationError, LogError
from cloister.receipts.head import log_key_of
from cloister.receipts.merkle import EMPTY_ROOT
from cloister.receipts.witness import (
    COSIGNATURE,
    LOG,
    MAX_REQUEST_BYTES,
    Cosigner,
    NoteKey,
    WitnessAheadError,
)

__all__ = ["Server", "app"]

app = typer.Typer(
    no_args_is_help=True, help="Cosign the audit log of a host, from a machine its operator does not own."
)

KeyFile = Annotated[Path, typer.Option("--key", help="File with the witness's private key.")]


@app.command()
def create(name: Annotated[str, typer.Argument(help="Such as witness.example.org.")], key: KeyFile) -> None:
    """Make a witness's key; prints the public half for hosts and clients."""
    if not name.isascii() or not name.isprintable() or set(name) & set(" +"):
        raise ConfigurationError("a witness's name has no spaces and no plus")
    private = Ed25519PrivateKey.generate()
    members = {"name": name, "key": jose.b64url_encode(private.private_bytes_raw())}
    write_private(key, json.dumps(members))
    typer.echo(str(_public(name, private)))


@app.command()
def log() -> None:
    """Print the key of the attested host's log, for `cloister witness serve --log`."""
    with Client.from_env() as client:
        keyset = client.attest().keyset
    named = log_key_of(keyset)
    if named is None:
        raise ConfigurationError("this host has no log")
    public = jose.b64url_decode(named.jwk["x"])
    typer.echo(str(NoteKey(name=f"cloister/{keyset.deployment}", algorithm=LOG, public=public)))


@app.command()
def serve(
    key: KeyFile,
    seen: Annotated[Path, typer.Option(help="File in which it keeps what it has seen.")],
    log_: Annotated[list[str], typer.Option("--log", help="Key of a log that is watched; repeatable.")],
    listen: Annotated[
        str, typer.Option(help="Address and port; TLS ends in front of it.")
    ] = "127.0.0.1:8788",
) -> None:
    """Answer `POST /add-checkpoint` until interrupted."""
    address, _, port = listen.rpartition(":")
    if not address or not port.isdecimal():
        raise ConfigurationError("--listen must be ADDRESS:PORT")
    name, private = _private(key)
    logs = [NoteKey.parse(text, algorithm=LOG) for text in log_]
    cosigner = Cosigner(_public(name, private), private, logs, SeenFile(seen))
    with Server((address, int(port)), cosigner) as server:
        sys.stderr.write(f"witness {name} on {listen}\n")
        server.serve_forever()


class Server(ThreadingHTTPServer):
    """The witness's HTTP surface."""

    def __init__(self, address: tuple[str, int], cosigner: Cosigner) -> None:
        super().__init__(address, _Handler)
        self.cosigner = cosigner
        self.one_at_a_time = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/add-checkpoint" or not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
            self._answer(400, "")
            return
        request = self.rfile.read(int(length))
        try:
            with self.server.one_at_a_time:
                line = self.server.cosigner.add(request, now=int(time.time()))
        except WitnessAheadError as ahead:
            self._answer(409, f"{ahead.size}\n")
        except LogError as refusal:
            self._answer(403, f"{refusal.args[0]}\n")
        else:
            self._answer(200, f"{line}\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/x.tlog.size" if status == 409 else "text/plain")  # noqa: PLR2004 (tlog-witness)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


class SeenFile:
    """What a witness has seen, in a JSON file that is replaced in one step and synced before it counts."""

    MAX_BYTES: Final = 1024 * 1024

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, origin: str) -> tuple[int, bytes]:
        """Size and root of the last checkpoint."""
        found = self._read().get(origin)
        return (0, EMPTY_ROOT) if found is None else (found["size"], jose.b64url_decode(found["root"]))

    def save(self, origin: str, size: int, root: bytes) -> None:
        """Keep a later one."""
        seen = {**self._read(), origin: {"size": size, "root": jose.b64url_encode(root)}}
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(seen, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def _read(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as file:
                seen = json.loads(file.read(self.MAX_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            raise LogError("what the witness has seen cannot be read") from None
        return dict(seen)


def _public(name: str, private: Ed25519PrivateKey) -> NoteKey:
    return NoteKey(name=name, algorithm=COSIGNATURE, public=private.public_key().public_bytes_raw())


def _private(path: Path) -> tuple[str, Ed25519PrivateKey]:
    try:
        members = json.loads(path.read_text(encoding="utf-8"))
        seed = jose.b64url_decode(members["key"])
        return str(members["name"]), Ed25519PrivateKey.from_private_bytes(seed)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path} is not a witness's key", hint="`cloister witness create`") from None
