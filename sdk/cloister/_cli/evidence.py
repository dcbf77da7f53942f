"""`cloister evidence`: authenticate and appraise a document from a file, with every input explicit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister import attestation
from cloister._cli._verdict import REFUSED, UNUSABLE, report, unusable
from cloister.attestation import fetching
from cloister.attestation.certificates import load_endorsements
from cloister.attestation.formats.azure_hcl import MAGIC
from cloister.errors import AttestationError, CloisterError, UnavailableError
from cloister.jose import strict_json

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look at attestation evidence.")

TIMEOUT_SECONDS: Final = 20
MAX_FILE_BYTES: Final = 2 * 1024 * 1024
_PINNED: Final = (MAGIC, b"-----BEGIN PUBLIC KEY-----")
_TEXT_FORMATS: Final = {
    attestation.Format.AZURE_MAA,
    attestation.Format.GCP_CONFIDENTIAL_SPACE,
}


@app.callback()
def _evidence() -> None:
    """Look at attestation evidence."""


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The evidence.")],
    *,
    format_: Annotated[attestation.Format, typer.Option("--format", help="What it is meant to be.")],
    at: Annotated[str, typer.Option(metavar="RFC3339", help="Decide for this time instead of now.")] = "",
    endorsements: Annotated[
        list[Path] | None,
        typer.Option(help="Certificates and CRLs, DER or PEM, any order; Azure's HCL report."),
    ] = None,
    collateral: Annotated[Path | None, typer.Option(help="Intel PCS collateral, JSON.")] = None,
    trust_anchor: Annotated[
        list[Path] | None, typer.Option(help="Roots to use instead of the pinned ones; the result is `test`.")
    ] = None,
    jwks: Annotated[Path | None, typer.Option(help="Keys of the token issuer, JSON.")] = None,
    nonce: Annotated[str, typer.Option(metavar="HEX", help="The challenge that was sent.")] = "",
    policy: Annotated[Path | None, typer.Option(help="Appraisal policy, TOML or JSON.")] = None,
    allow_debug: Annotated[bool, typer.Option("--allow-debug", help="Accept a debug environment.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Authenticate and appraise evidence.

    Exit code 0: accepted; 3: refused; 2: the input cannot be used. Without a policy, only freshness
    and debug are appraised.
    """
    try:
        when = _time(at)
        challenge = bytes.fromhex(nonce) if nonce else None
        rules = None if policy is None else read_policy(policy)
        raw = _read(file)
        support: dict[str, Any] = {
            "endorsements": [_read(path) for path in endorsements or ()],
            "collateral": None if collateral is None else _read(collateral),
            "trust_anchors": [_anchor(path) for path in trust_anchor] if trust_anchor else None,
            "jwks": None if jwks is None else _key_set(jwks),
        }
    except (OSError, ValueError, CloisterError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
        raise unusable(reason, as_json=as_json) from None
    if format_ in _TEXT_FORMATS:
        raw = raw.strip()
    if support["trust_anchors"] is None and rules is not None:
        support["trust_anchors"] = rules.trust_anchors
    evidence: attestation.AuthenticEvidence | None = None
    try:
        evidence = attestation.authenticate(raw, format=format_, at=when, **support)
        appraisal = _appraise(evidence, rules, nonce=challenge, allow_debug=allow_debug, at=when)
    except AttestationError as refusal:
        report(_result("refused", str(refusal), evidence), as_json=as_json)
        raise typer.Exit(REFUSED) from None
    reason = (
        f"matches {appraisal.reference}" if appraisal.reference else "genuine and fresh; no policy was given"
    )
    report(_result("accepted", reason, evidence, appraisal), as_json=as_json)


@app.command()
def fetch(
    file: Annotated[Path, typer.Argument(help="An SEV-SNP report, TDX quote or SGX quote.")],
    *,
    format_: Annotated[attestation.Format, typer.Option("--format", help="What it is.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("endorsements"),
    product: Annotated[str, typer.Option(help="AMD product line, for reports of version 2.")] = "",
) -> None:
    """Fetch the vendor's certificates, revocation lists and collateral for a document.

    They are written beside each other: pass `*.der` and `*.pem` with --endorsements, `collateral.json`
    with --collateral. Nothing that is fetched is trusted; `verify` decides.
    """
    try:
        fetched = fetching.fetch(_read(file), format=format_, get=_get, product=product)
        out.mkdir(parents=True, exist_ok=True)
        for index, item in enumerate(fetched.endorsements):
            suffix = "pem" if item.startswith(b"-----BEGIN") else "der"
            (out / f"{index}.{suffix}").write_bytes(item)
        if fetched.collateral is not None:
            (out / "collateral.json").write_bytes(fetched.collateral)
    except (OSError, ValueError, CloisterError) as error:
        typer.echo(f"unusable: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    typer.echo(f"{len(fetched.endorsements)} endorsements in {out}")


def _get(address: str) -> tuple[bytes, Mapping[str, str]]:
    import requests  # noqa: PLC0415 (only this command needs it)

    try:
        with requests.get(address, timeout=TIMEOUT_SECONDS, stream=True, allow_redirects=False) as response:
            if response.status_code != requests.codes.ok:
                raise UnavailableError(f"{address} answered {response.status_code}")
            body = response.raw.read(MAX_FILE_BYTES + 1, decode_content=True)
    except requests.RequestException:
        raise UnavailableError(f"{address} does not answer") from None
    if len(body) > MAX_FILE_BYTES:
        raise UnavailableError(f"{address} answered too much")
    return body, {name.lower(): value for name, value in response.headers.items()}


def read_policy(path: Path) -> attestation.AppraisalPolicy:
    """Read a policy; a name that ends in .json is JSON, anything else TOML.

    Raises:
        OSError: It cannot be read.
        ConfigurationError: It is not a policy.
    """
    text = _read(path).decode("utf-8")
    if path.suffix == ".json":
        return attestation.AppraisalPolicy.from_json(text)
    return attestation.AppraisalPolicy.from_toml(text)


def _appraise(
    evidence: attestation.AuthenticEvidence,
    policy: attestation.AppraisalPolicy | None,
    *,
    nonce: bytes | None,
    allow_debug: bool,
    at: datetime,
) -> attestation.Appraisal:
    if policy is None:
        return attestation.appraise_freshness(evidence, nonce=nonce, allow_debug=allow_debug, at=at)
    # The policy decides about debug; the nonce is looked for either way.
    fresh = attestation.appraise_freshness(evidence, nonce=nonce, allow_debug=True, at=at)
    appraisal = attestation.appraise_claims(evidence, policy, at=at)
    return attestation.Appraisal(
        reference=appraisal.reference,
        checks=(*fresh.checks, *appraisal.checks),
        not_checked=(
            *(line for line in fresh.not_checked if line.startswith("nonce")),
            *appraisal.not_checked,
            "deployment, configuration and holders: they are in the keyset, not in the evidence",
        ),
    )


def _result(
    verdict: str,
    reason: str,
    evidence: attestation.AuthenticEvidence | None,
    appraisal: attestation.Appraisal | None = None,
) -> dict[str, Any]:
    result: dict[str, Any] = {"verdict": verdict, "reason": reason, "claims": {}, "not_checked": []}
    if evidence is None:
        return result
    result |= {
        "format": evidence.format,
        "environment": evidence.environment,
        "debug": evidence.debug,
        "issued_at": None if evidence.issued_at is None else evidence.issued_at.isoformat(),
        "not_before": evidence.not_before.isoformat(),
        "not_after": evidence.not_after.isoformat(),
        "claims": dict(evidence.claims),
        "checks": list(evidence.checks),
        "not_checked": list(evidence.not_checked),
    }
    if appraisal is not None:
        result["checks"] += appraisal.checks
        result["not_checked"] += appraisal.not_checked
    return result


def _time(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        raise ValueError("--at needs a time zone, such as 2026-11-01T12:00:00Z")
    return moment


def _anchor(path: Path) -> bytes:
    """A root, a pinned attestation key or Azure's HCL report; anything else is the caller's mistake."""
    raw = _read(path)
    if not raw.lstrip().startswith(_PINNED) and not load_endorsements([raw]).certificates:
        raise ValueError(f"{path}: neither a certificate nor a public key")
    return raw


def _key_set(path: Path) -> bytes:
    raw = _read(path)
    if not isinstance(strict_json.load_object(raw).get("keys"), list):
        raise ValueError(f"{path}: not a JSON Web Key Set")  # noqa: TRY004 (all input errors are one)
    return raw


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return content
