"""`cloister backup`: take backups of a host, and check them without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from cloister import jose
from cloister._cli._client import call, read_jwk, show, write_private
from cloister._cli._files import opened, replacing
from cloister._cli.evidence import read_policy
from cloister.backups import Backup, Manifest, verify_log
from cloister.backups.log import CheckedLog
from cloister.client import Client
from cloister.errors import AttestationError, ConfigurationError, OpenError
from cloister.function.names import check_name
from cloister.head_file import HeadFile
from cloister.receipts.head import TreeHead, verify_head_under

__all__ = ["app", "known_head"]

app = typer.Typer(
    no_args_is_help=True, help="Backups of a whole host (needs the operator's API key), checked anywhere."
)

REFUSED: Final = 3
SUFFIX: Final = ".clbackup"

KeyFile = Annotated[Path, typer.Option("--key", help="Public half of the backup key, a JWK.")]
File = Annotated[Path, typer.Argument(help="A backup.")]


@app.command("key")
def make_key(
    out: Annotated[Path, typer.Option(help="New file for the private key; keep it away from the host.")],
    *,
    name: Annotated[str, typer.Option(help="What the key is called.")] = "backup",
    fips: Annotated[bool, typer.Option("--fips", help="P-256 instead of post-quantum X-Wing.")] = False,
) -> None:
    """Make a backup key (HPKE); prints its public half, for `cloister backup create`. Needs no host."""
    key = jose.generate_key("HPKE-7-KE" if fips else "HPKE-10-KE", kid=f"{check_name(name, 'backup key')}.1")
    write_private(out, json.dumps(key.to_jwk()))
    typer.echo(json.dumps(jose.public_jwk(key)))


@app.command("create")
def create(
    *,
    key: KeyFile,
    out: Annotated[Path | None, typer.Option(help="New file.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for a file named after deployment and time, for schedules.")
    ] = None,
    keep: Annotated[
        int, typer.Option(min=0, help="With --folder: delete older backups but so many; 0 keeps all.")
    ] = 0,
) -> None:
    """Back the host up as of now. The file appears once it is whole, and was checked.

    The right `backup.create` in the tenant `system`, which the operator has.
    """
    if (out is None) == (folder is None):
        raise ConfigurationError("name a file or a folder", hint="--out FILE or --folder FOLDER")
    if out is not None and out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    public = read_jwk(key)
    with Client.from_env() as client:
        deployment = client.attest().keyset.deployment
        target = out or _scheduled(folder or Path(), deployment)
        with replacing(target) as file:
            client.receive(
                "backup.create",
                {"key": jose.public_jwk(public)},
                lambda piece: file.write(jose.b64url_decode(piece["data"])),
            )
            file.flush()
            backup = Backup(file, deployment=deployment)
            backup.check_object()
    if folder is not None and keep:
        _prune(folder, deployment, keep)
    show({"file": str(target), **_described(backup.manifest)})


@app.command("list")
def list_() -> None:
    """List the backups that were taken; what is `gone` has been declared so."""
    show(call("backup.list", {}), "backups")


@app.command("forget")
def forget(backup: Annotated[str, typer.Argument(help="Id of a backup.")]) -> None:
    """Declare that every copy of a backup was destroyed; the deletion of tenants waits for that."""
    show(call("backup.forget", {"backup": backup}))


@app.command("verify")
def verify(
    file: File,
    *,
    policy: Annotated[
        Path | None, typer.Option(help="Appraisal policy that names the deployment, TOML or JSON.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The private backup key: every row and the log are read.")
    ] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Tree heads that were seen (CLOISTER_HEAD_FILE).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a backup offline: whose it is, that it is whole, and that its log is the one that was seen.

    Exit code 0: it is what it says; 3: it is not. What was not checked is said.
    """
    deployment = None if policy is None else read_policy(policy).deployment
    try:
        with opened(file) as source:
            found = _verified(source, deployment, None if key is None else read_jwk(key), heads)
    except (AttestationError, OpenError) as refusal:
        _report({"verdict": "refused", "reason": str(refusal)}, as_json=as_json)
        raise typer.Exit(REFUSED) from None
    _report({"verdict": "verified", **found}, as_json=as_json)


def _verified(
    source: BinaryIO, deployment: str | None, key: Mapping[str, Any] | None, heads: Path | None
) -> dict[str, Any]:
    not_checked = []
    if deployment is None:
        not_checked.append("deployment: no policy was given, any deployment would have been accepted")
    backup = Backup(source, deployment=deployment)
    manifest = backup.manifest
    known = _known(heads, manifest)
    backup.check_object()
    found = dict(_described(manifest))
    if known is None:
        not_checked.append("log: no head of it was known before")
    elif known.size > manifest.head.size:
        # Genuine, and not the latest: whoever restores it undoes what came later.
        found["behind"] = known.size - manifest.head.size
    if key is None:
        not_checked.append("content: without the backup key the rows and the log's entries were not read")
        if known is not None and known.size == manifest.head.size and known.root != manifest.head.root:
            raise OpenError("the backup's log is another than the one that was seen before")
    else:
        checked: CheckedLog = verify_log(backup.records(jose.Key.from_jwk(key)), manifest, known=known)
        found.update(entries=checked.entries, waiting=checked.waiting)
    not_checked.append("rows: what is secret in them opens under the root key only")
    return {**found, "not_checked": not_checked}


def _known(heads: Path | None, manifest: Manifest) -> TreeHead | None:
    token = None if heads is None else HeadFile(heads).load(manifest.deployment)
    if token is None:
        return None
    return verify_head_under(token, key=manifest.log_key, deployment=manifest.deployment)


def known_head(heads: Path | None, backup: BinaryIO) -> TreeHead | None:
    """The head of a backup's log that a client kept.

    Raises:
        LogError: What was kept is not a head of that log.
    """
    return _known(heads, Backup(backup, deployment=None).manifest)


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "backup": manifest.id,
        "deployment": manifest.deployment,
        "created_at": datetime.fromtimestamp(manifest.created_at, UTC).isoformat(),
        "incarnation": manifest.incarnation,
        "log_size": manifest.head.size,
        "key": manifest.key,
        "digest": manifest.object_digest,
    }


def _scheduled(folder: Path, deployment: str) -> Path:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return folder / f"{deployment[:12]}-{moment}{SUFFIX}"


def _prune(folder: Path, deployment: str, keep: int) -> None:
    """Delete all but the newest backups of this deployment; anything else in the folder is left alone."""
    files = sorted(folder.glob(f"{deployment[:12]}-*{SUFFIX}"))
    for path in files[:-keep]:
        path.unlink()


def _report(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    if "reason" in result:
        typer.echo(f"{result['verdict']}: {result['reason']}")
        return
    typer.echo(f"verified: backup {result['backup']} of {result['deployment']}, as of {result['created_at']}")
    if "entries" in result:
        typer.echo(f"  checked      every one of the {result['entries']} entries of its log")
    if "behind" in result:
        typer.echo(f"  BEHIND       {result['behind']} entries of the log that was seen are missing")
    for line in result["not_checked"]:
        typer.echo(f"  NOT checked  {line}")
