"""`cloister key`: keys, their versions and their lives, and what is done with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister import jose
from cloister._cli._arguments import Yes, confirm, given, read_data, read_lines, seconds, when
from cloister._cli._client import call, show, write_private
from cloister._cli.values import Context, each_context
from cloister.client import Client
from cloister.errors import CloisterError, ConfigurationError

__all__ = ["app"]

SYMMETRIC_BYTES: Final = 32

app = typer.Typer(no_args_is_help=True, help="Keys, their versions, and what is done with them.")

Name = Annotated[str, typer.Argument(help="Name of the key.")]
Kid = Annotated[str, typer.Argument(help="A version of a key, such as orders.3.")]
Purpose = Annotated[str, typer.Option(help="seal, seal-public, tokenize, mac or sign.")]
Alg = Annotated[
    str | None,
    typer.Option(help="seal-public: HPKE-10-KE, HPKE-7-KE. sign: EdDSA, ES256, ES384, ML-DSA-65."),
]
Exportable = Annotated[bool, typer.Option("--exportable", help="Versions may leave, wrapped. Never changes.")]
RotateEvery = Annotated[str | None, typer.Option(help="How often the host makes a new version, as 90d.")]
Active = Annotated[str | None, typer.Option(help="Cryptoperiod: how long a version protects.")]
Recipients = Annotated[str | None, typer.Option(help="How long after that it still opens.")]
MaxMessages = Annotated[int | None, typer.Option(help="How many messages a version may protect.")]
DestroyWait = Annotated[str | None, typer.Option(help="Shortest wait before a version is destroyed.")]
ActivateAt = Annotated[str | None, typer.Option(help="When the version takes over: ISO 8601, or +7d.")]
File = Annotated[Path | None, typer.Option(help="Where the data is; standard input otherwise.")]
Aad = Annotated[str, typer.Option(help="Text that the ciphertext is bound to.")]


@app.command("create")
def create(
    name: Name,
    *,
    purpose: Purpose = "seal",
    alg: Alg = None,
    exportable: Exportable = False,
    rotate_every: RotateEvery = None,
    active: Active = None,
    recipients: Recipients = None,
    max_messages: MaxMessages = None,
    destroy_wait: DestroyWait = None,
    activate_at: ActivateAt = None,
) -> None:
    """Create a key with its first version."""
    rules = _rules(rotate_every, active, recipients, max_messages, destroy_wait)
    payload = {"key": name, "purpose": purpose, "exportable": exportable, **rules}
    show(call("key.create", payload | given(alg=alg, activate_at=when(activate_at))))


@app.command("list")
def list_() -> None:
    """List the keys, a line each."""
    show(call("key.list", {}), "keys")


@app.command("show")
def show_(name: Name) -> None:
    """Show a key, its versions, and what still hangs on each as far as the host can know."""
    show(call("key.show", {"key": name}))


@app.command("public")
def public(name: Name) -> None:
    """Show the public half of a key, with the deployment's signed word for it."""
    show(call("key.public", {"key": name}))


@app.command("rotate")
def rotate(
    name: Name,
    activate_at: ActivateAt = None,
    if_kid: Annotated[str | None, typer.Option(help="Only if this is still the newest version.")] = None,
) -> None:
    """Add a version; new values are sealed under it, old ones still open."""
    show(call("key.rotate", {"key": name} | given(activate_at=when(activate_at), if_kid=if_kid)))


@app.command("state")
def state(
    kid: Kid,
    to: Annotated[str, typer.Argument(help="active, suspended, deactivated or compromised.")],
    *,
    accept_processing: Annotated[
        bool, typer.Option("--accept-processing", help="Let it still open what it protects.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="For the audit log.")] = None,
) -> None:
    """Move a version to another state (NIST SP 800-57); `destroy` is a command of its own."""
    payload = {"kid": kid, "state": to, "accept_processing": accept_processing}
    show(call("key.state", payload | given(reason=reason)))


@app.command("schedule")
def schedule(
    name: Name,
    *,
    rotate_every: RotateEvery = None,
    active: Active = None,
    recipients: Recipients = None,
    max_messages: MaxMessages = None,
    destroy_wait: DestroyWait = None,
    min_seal: Annotated[int | None, typer.Option(help="The lowest version that may protect.")] = None,
    min_open: Annotated[int | None, typer.Option(help="The lowest version that may open.")] = None,
    kid: Annotated[str | None, typer.Option(help="The version whose times are meant.")] = None,
    activate_at: ActivateAt = None,
    deactivate_at: Annotated[str | None, typer.Option(help="When it stops protecting.")] = None,
    clear: Annotated[list[str] | None, typer.Option(help="A rule that no longer holds; repeatable.")] = None,
) -> None:
    """Change the rules of a key, or when a version begins and ends."""
    payload: dict[str, Any] = {
        "key": name,
        **_rules(rotate_every, active, recipients, max_messages, destroy_wait),
        **given(min_seal=min_seal, min_open=min_open, kid=kid),
        **given(activate_at=when(activate_at), deactivate_at=when(deactivate_at)),
    }
    if clear:
        payload["clear"] = clear
    show(call("key.schedule", payload))


@app.command("destroy")
def destroy(
    kid: Kid,
    wait: Annotated[str | None, typer.Option(help="How long there is a way back.")] = None,
    *,
    yes: Yes = False,
) -> None:
    """Stop a version now, and destroy it when its waiting period ends."""
    confirm("what is under the version opens no more, and after the waiting period never again", yes=yes)
    show(call("key.destroy", {"kid": kid} | given(wait_seconds=seconds(wait))))


@app.command("restore")
def restore(kid: Kid) -> None:
    """Take a version back out of its waiting period."""
    show(call("key.restore", {"kid": kid}))


@app.command("import")
def import_(
    name: Name,
    file: Annotated[Path, typer.Option(help="32 bytes of a symmetric key, or a private JWK.")],
    *,
    purpose: Purpose = "seal",
    exportable: Exportable = False,
    rotate_every: RotateEvery = None,
    active: Active = None,
    recipients: Recipients = None,
    max_messages: MaxMessages = None,
    destroy_wait: DestroyWait = None,
) -> None:
    """Bring a key of your own, wrapped to a key that the attested host vouches for."""
    rules = _rules(rotate_every, active, recipients, max_messages, destroy_wait)
    material = _material(read_data(file))
    with Client.from_env() as client:
        kid = client.import_key(name, material, purpose=purpose, exportable=exportable, **rules)
    show({"key": name, "kid": kid, "purpose": purpose})


@app.command("export")
def export(
    kid: Kid,
    to: Annotated[Path, typer.Option(help="File with the HPKE public half (JWK) it is wrapped to.")],
    out: Annotated[Path, typer.Option(help="New file for the wrapped key.")],
) -> None:
    """Take a version along, wrapped; only of a key that was created exportable."""
    recipient = _jwk(read_data(to))
    if out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    with Client.from_env() as client:
        exported = client.export_key(kid, recipient)
    write_private(out, exported.wrapped)
    name = exported.name
    show({"kid": kid, "tenant": name.tenant, "purpose": name.purpose, "alg": name.alg, "file": str(out)})


@app.command("rewrap")
def rewrap(name: Name, context: Context = None) -> None:
    """Move sealed values and ciphertexts from standard input, one a line, to the current version."""
    values = read_lines()
    with Client.from_env() as client:
        moved = client.rewrap(values, key=name, contexts=each_context(context, values))
    for value in moved.values:
        typer.echo(value or "")
    failed = moved.values.count(None)
    summary = f"{moved.moved} moved to {moved.kid}, {moved.kept} with their data key, {failed} failed"
    typer.echo(summary, err=True)
    if failed:
        raise typer.Exit(1)


@app.command("encrypt")
def encrypt(name: Name, file: File = None, aad: Aad = "") -> None:
    """Encrypt the data of a file or of standard input."""
    data = read_data(file)
    with Client.from_env() as client:
        typer.echo(client.encrypt(data, key=name, aad=aad.encode()))


@app.command("decrypt")
def decrypt(aad: Aad = "") -> None:
    """Decrypt the ciphertext on standard input."""
    with Client.from_env() as client:
        sys.stdout.buffer.write(client.decrypt(sys.stdin.read().strip(), aad=aad.encode()))


@app.command("mac")
def mac(name: Name, file: File = None) -> None:
    """HMAC-SHA256 of the data of a file or of standard input."""
    data = read_data(file)
    with Client.from_env() as client:
        typer.echo(client.mac(data, key=name))


@app.command("sign")
def sign(name: Name, file: File = None) -> None:
    """Sign the data of a file or of standard input."""
    data = read_data(file)
    with Client.from_env() as client:
        typer.echo(client.sign(data, key=name))


@app.command("verify")
def verify(proof: Annotated[str, typer.Argument(help="The MAC or signature.")], file: File = None) -> None:
    """Verify a MAC or signature of the data of a file or of standard input."""
    data = read_data(file)
    with Client.from_env() as client:
        client.verify(data, proof)
    typer.echo("good")


@app.command("random")
def random(size_bytes: Annotated[int, typer.Argument(help="How many bytes.")] = 32) -> None:
    """Random bytes from inside the TEE, as base64url."""
    with Client.from_env() as client:
        typer.echo(jose.b64url_encode(client.random(size_bytes)))


def _rules(
    rotate_every: str | None,
    active: str | None,
    recipients: str | None,
    max_messages: int | None,
    destroy_wait: str | None,
) -> dict[str, Any]:
    return given(
        rotate_seconds=seconds(rotate_every),
        active_seconds=seconds(active),
        recipient_seconds=seconds(recipients),
        max_messages=max_messages,
        destroy_wait_seconds=seconds(destroy_wait),
    )


def _material(raw: bytes) -> bytes | dict[str, Any]:
    return raw if len(raw) == SYMMETRIC_BYTES else _jwk(raw)


def _jwk(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
        if isinstance(found, dict):
            return found
    except (ValueError, CloisterError):
        pass
    raise ConfigurationError("this file holds neither 32 bytes nor a JWK", hint="a JWK is one JSON object")
