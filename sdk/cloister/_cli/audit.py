"""`cloister audit`: read the audit log, and check it without believing the host's database."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister import jose
from cloister._cli._client import call, show
from cloister._cli.evidence import read_policy
from cloister.attestation import AppraisalPolicy
from cloister.client import Client
from cloister.errors import AttestationError, ConfigurationError, LogError
from cloister.protocol.attest import appraise_staple
from cloister.receipts.entry import prove_document, verify_entry_proof
from cloister.receipts.export import MAX_LINE_BYTES, ExportVerifier, VerifiedExport
from cloister.receipts.head import TreeHead
from cloister.receipts.keeper import check_order, read_path
from cloister.receipts.merkle import verify_consistency
from cloister.receipts.siem import Format, decode_line, encode_line, format_of

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="What was done and what was refused, in a log nobody can rewrite."
)

REFUSED: Final = 3
PAGE: Final = 5000
MAX_EVENT_BYTES: Final = 8 * MAX_LINE_BYTES

PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Appraisal policy for the host behind it, TOML or JSON.")
]


@app.command("list")
def list_entries(
    after: Annotated[str, typer.Option(help="Continue behind this entry.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many entries.")] = 100,
) -> None:
    """List audit entries, oldest first."""
    show(call("audit.list", {"after": after, "limit": limit}), "entries")


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export; the host's own log otherwise.")] = None,
    *,
    policy: PolicyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check every entry of the tenant against the signed log, and that none is missing.

    Exit code 0: it is all there; 3: it is not. Offline, a policy says which host is believed.
    """
    try:
        found = _verify_online() if file is None else _verify_file(file, policy)
    except AttestationError as refusal:
        _report({"verdict": "refused", "reason": str(refusal)}, as_json=as_json)
        raise typer.Exit(REFUSED) from None
    _report({"verdict": "verified", **found}, as_json=as_json)


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="New file; standard output otherwise.")] = None,
    *,
    format_: Annotated[Format, typer.Option("--format", help="jsonl, ocsf (1.3) or cef.")] = "jsonl",
) -> None:
    """Write the tenant's entries with what proves them; `cloister audit verify FILE` needs no host.

    The export is verified while it is written.
    """
    if out is not None and out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    with Client.from_env() as client, ExitStack() as stack:
        target = (
            sys.stdout if out is None else stack.enter_context(out.open("w", encoding="utf-8", newline=""))
        )

        def write(line: str) -> None:
            target.write(encode_line(line, format_) + "\n")

        found = _verified(client, write)
    typer.echo(f"{found.entries} entries, as of a log of {found.head.size}", err=True)


@app.command()
def prove(
    entry: Annotated[str, typer.Argument(help="Id of an entry, from `cloister audit list`.")],
    out: Annotated[Path | None, typer.Option(help="New file; standard output otherwise.")] = None,
) -> None:
    """Get the proof that one entry is in the log, as a document that verifies by itself."""
    with Client.from_env() as client:
        deployment = client.attest().keyset.deployment
        document = prove_document(client.call("audit.prove", {"entry": entry}))
    verify_entry_proof(document, deployment=deployment)
    text = json.dumps(document, indent=2)
    if out is None:
        typer.echo(text)
    elif out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _verify_online() -> dict[str, Any]:
    with Client.from_env() as client:
        client.attest()
        before = client.tree_head
        found = _verified(client, lambda _line: None)
        _link(client, found.head)
        result = _result(found)
        result["continues"] = None if before is None else _shown(before)
        result["not_checked"] = [line for line in client.attest().not_checked if line.startswith("log:")]
    return result


def _link(client: Client, head: TreeHead) -> None:
    """Check that an export's head and the client's own are of one log."""
    own = client.tree_head
    if own is None or own.token == head.token:
        return
    check_order(head, own)
    small, large = sorted((head, own), key=lambda item: item.size)
    path = client.call("audit.consistency", {"first": small.size, "second": large.size})["path"]
    verify_consistency(
        small.size, large.size, first_root=small.root, second_root=large.root, path=read_path(path)
    )


def _verified(client: Client, write: Any) -> VerifiedExport:
    """Go through the whole export of a host; every line is written before it is verified as a whole."""
    lines = _lines(client)
    header = next(lines)
    verifier = ExportVerifier(header.encode(), deployment=client.attest().keyset.deployment)
    write(header)
    for line in lines:
        verifier.feed(line.encode())
        write(line)
    return verifier.finish()


def _lines(client: Client) -> Iterator[str]:
    checkpoint = client.call("audit.checkpoint", {})
    yield str(checkpoint["header"])
    start: int | None = 0
    while start is not None:
        request = {"size": checkpoint["size"], "start": start, "limit": PAGE}
        page = client.call("audit.export", request)
        yield from str(page["lines"]).split("\n")[:-1]
        start = page["next"]


def _verify_file(path: Path, policy_file: Path | None) -> dict[str, Any]:
    policy = None if policy_file is None else read_policy(policy_file)
    events = _events(path)
    first = next(events, b"")
    format_ = format_of(first)
    pinned = None if policy is None else policy.deployment
    verifier = ExportVerifier(decode_line(first, format_), deployment=pinned)
    for event in events:
        verifier.feed(decode_line(event, format_))
    found = verifier.finish()
    result = _result(found)
    result["not_checked"] = [*found.not_checked, *_appraised(found, policy), _ELSEWHERE]
    return result


_ELSEWHERE: Final = "log: other heads of it that somebody may have seen"


def _appraised(found: VerifiedExport, policy: AppraisalPolicy | None) -> tuple[str, ...]:
    """Appraise the host behind an export as of when its keyset was signed."""
    if policy is None:
        return ("host: no policy was given, its evidence was not looked at",)
    return appraise_staple(found.evidence, policy, now=found.keyset.issued_at).not_checked


def _events(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while event := file.readline(MAX_EVENT_BYTES + 1):
                if not event.endswith(b"\n"):
                    raise LogError("the export has a line that is too long or cut short")
                yield event[:-1]
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _result(found: VerifiedExport) -> dict[str, Any]:
    return {
        "tenant": found.tenant,
        "deployment": found.head.deployment,
        "entries": found.entries,
        "head": _shown(found.head),
    }


def _shown(head: TreeHead) -> Mapping[str, Any]:
    return {
        "size": head.size,
        "root": jose.b64url_encode(head.root),
        "time": datetime.fromtimestamp(head.time / 1000, UTC).isoformat(timespec="milliseconds"),
    }


def _report(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    if "reason" in result:
        typer.echo(f"{result['verdict']}: {result['reason']}")
        return
    head = result["head"]
    typer.echo(
        f"verified: every one of the {result['entries']} entries of {result['tenant']}"
        f" in a log of {head['size']}, as of {head['time']}"
    )
    if result.get("continues"):
        typer.echo(f"  checked      it continues the log of {result['continues']['size']} seen before")
    for line in result["not_checked"]:
        typer.echo(f"  NOT checked  {line}")
