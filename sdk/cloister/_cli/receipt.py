"""`cloister receipt`: look at receipts, take them along with what proves them, verify them offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister._cli._client import write_private
from cloister._cli.audit import PolicyFile
from cloister._cli.evidence import read_policy
from cloister.client import Client
from cloister.errors import AttestationError, ConfigurationError, EvidenceError
from cloister.receipts import Receipt
from cloister.receipts.bundle import VerifiedBundle, bundle, load_bundle, verify_bundle

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Proof of which code answered, without the answer.")

REFUSED: Final = 3
MAX_FILE_BYTES: Final = 4 * 1024 * 1024

ReceiptFile = Annotated[Path, typer.Argument(help="A receipt, or a reply that has one.")]


@app.command()
def show(file: ReceiptFile) -> None:
    """Show what a receipt or a bundle claims and discloses. Nothing is verified."""
    receipt = _receipt(load_bundle(_read(file)))
    typer.echo(
        json.dumps(
            {
                "id": receipt.id,
                "claims": dict(receipt.unverified_claims),
                "disclosures": dict(receipt.unverified_disclosures),
            },
            indent=2,
            ensure_ascii=False,
        )
    )


@app.command()
def export(
    file: ReceiptFile,
    out: Annotated[Path, typer.Option(help="New file for the bundle.")],
    *,
    disclose: Annotated[
        list[str] | None,
        typer.Option(help="Name of a disclosure that goes along; repeatable. None goes along by default."),
    ] = None,
    disclose_all: Annotated[bool, typer.Option("--disclose-all", help="All of them go along.")] = False,
) -> None:
    """Bundle a receipt with the evidence behind it and the proof of its leaf in the log.

    `cloister receipt verify` needs nothing else but an appraisal policy.
    """
    receipt = _receipt(load_bundle(_read(file)))
    claims = receipt.unverified_claims
    with Client.from_env() as client:
        evidence = client.call("receipt.evidence", {"keyset": claims.get("keyset"), "at": claims.get("iat")})
        proof = client.call("receipt.proof", {"receipt": receipt.id})
    document = bundle(
        receipt,
        evidence=evidence["evidence"],
        log=proof,
        disclose=None if disclose_all else disclose or [],
    )
    if out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    write_private(out, json.dumps(document, indent=2))
    typer.echo(f"{out}: leaf {proof['index']} of the log")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A bundle, from `cloister receipt export`.")],
    *,
    policy: PolicyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify a receipt offline: its signature, the host behind it, its leaf in the log, what it discloses.

    Exit code 0: verified; 3: refused.
    """
    try:
        rules = None if policy is None else read_policy(policy)
        found = verify_bundle(load_bundle(_read(file)), rules)
    except AttestationError as refusal:
        typer.echo(
            json.dumps({"verdict": "refused", "reason": str(refusal)}) if as_json else f"refused: {refusal}"
        )
        raise typer.Exit(REFUSED) from None
    _report(found, as_json=as_json)


def _report(found: VerifiedBundle, *, as_json: bool) -> None:
    result = {
        "verdict": "verified",
        "environment": found.environment,
        "claims": dict(found.claims),
        "disclosed": dict(found.disclosed),
        "log": None if found.head is None else {"index": found.index, "size": found.head.size},
        "checks": list(found.checks),
        "not_checked": list(found.not_checked),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    claims = found.claims
    typer.echo(f"verified: {claims.get('act')} on {claims.get('resource')}: {claims.get('outcome')}")
    for name, value in found.disclosed.items():
        typer.echo(f"  disclosed    {name}: {json.dumps(value, ensure_ascii=False)}")
    for line in found.checks:
        typer.echo(f"  checked      {line}")
    for line in found.not_checked:
        typer.echo(f"  NOT checked  {line}")


def _receipt(members: Mapping[str, Any]) -> Receipt:
    """Find the receipt in a file: it alone, in a bundle, or in a reply."""
    inner = members.get("receipt")
    if isinstance(inner, dict):
        return Receipt.from_json(inner)
    if "id" in members:
        return Receipt.from_json(members)
    if not isinstance(inner, str):
        raise EvidenceError("there is no receipt in this file")
    receipt = Receipt.from_json({"id": "", "receipt": inner, "disclosures": members.get("disclosures", [])})
    return Receipt.from_json({**receipt.to_json(), "id": str(receipt.unverified_claims.get("jti"))})


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
