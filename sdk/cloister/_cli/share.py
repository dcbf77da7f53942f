"""`cloister share submit`: bring an operator's share to a host that waits for it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister._host import HTTP_OK, NONCE_BYTES
from cloister.client import JSON_TYPE, challenge_body, policy_from
from cloister.config import gather
from cloister.errors import ConfigurationError, UnavailableError
from cloister.protocol.share import ShareInvitation, seal_share
from cloister.transport import TransportError
from cloister.transport.stdlib import HttpTransport

__all__ = ["app"]

MAX_SHARE_BYTES: Final = 4096

app = typer.Typer(help="Bring shares to a host that waits for them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group of commands, though it has one."""


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="The operator's share, as it was written.")],
    jwks: Annotated[Path | None, typer.Option(help="Keys of a token issuer, JSON, for tokens.")] = None,
) -> None:
    """Appraise the host at CLOISTER_URL, which waits for shares, by CLOISTER_POLICY; seal one to it."""
    values = gather(("url", "policy"))
    policy = policy_from(Path(values["policy"]))
    keys = None if jwks is None else _read(jwks)
    words = _read(file)
    if len(words) > MAX_SHARE_BYTES:
        raise ConfigurationError("this file is no share", hint=f"look at {file}")
    timeout = float(values["timeout_seconds"])
    nonce = os.urandom(NONCE_BYTES)
    transport = HttpTransport(str(values["url"]))
    try:
        answer = _post(transport, "/v1/shares/challenge", challenge_body(nonce), JSON_TYPE, timeout)
        sealed = seal_share(
            ShareInvitation.from_bytes(answer), policy, words, nonce=nonce, at=datetime.now(UTC), jwks=keys
        )
        answer = _post(transport, "/v1/shares", sealed.encode(), "application/jose", timeout)
    finally:
        transport.close()
    try:
        counts = json.loads(answer)
        have, need = int(counts["have"]), int(counts["need"])
    except (ValueError, KeyError, TypeError):
        raise UnavailableError("the host did not say whether it took the share") from None
    typer.echo(f"{have} of {need} shares; " + ("the host starts" if have >= need else "it waits for more"))


def _post(transport: HttpTransport, path: str, body: bytes, content_type: str, timeout: float) -> bytes:
    try:
        response = transport.post(path, body, content_type=content_type, timeout_seconds=timeout)
    except TransportError as error:
        raise UnavailableError(f"the host cannot be reached ({error})") from None
    if response.status != HTTP_OK:
        raise UnavailableError(
            f"the host answered {response.status}",
            hint="does it wait for shares, and is this one of its root key?",
        )
    return response.body


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from None
