"""`cloister attest`: appraise the host and send nothing else, for CI and deploy gates."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister import jose
from cloister._cli._verdict import REFUSED, report, unusable
from cloister._host import HTTP_OK, NONCE_BYTES
from cloister.attestation import AppraisalPolicy
from cloister.client import JSON_TYPE, challenge_body, policy_from
from cloister.config import gather
from cloister.errors import (
    AttestationError,
    CloisterError,
    ConfigurationError,
    EvidenceError,
    UnavailableError,
)
from cloister.jose import strict_json
from cloister.protocol.attest import (
    MAX_DOCUMENT_BYTES,
    AttestationDocument,
    AttestationResult,
    appraise_document,
    appraise_staple,
)
from cloister.transport import TransportError
from cloister.transport.stdlib import HttpTransport

__all__ = ["attest", "challenge"]

VERSION: Final = 1
MEMBERS: Final = {"v", "nonce", "document"}
SAVED: Final = "freshness: a saved statement answers an earlier challenge; it is good while its keyset lives"


def attest(
    statement: Annotated[
        Path | None, typer.Option(help="Appraise what --save wrote, without a route to the host.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Also write the host's statement to this file.")] = None,
    jwks: Annotated[Path | None, typer.Option(help="Keys of a token issuer, JSON, for tokens.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Appraise the host by CLOISTER_POLICY, and show what was checked and what was not.

    Nothing but a challenge is sent; neither tenant nor credential is needed. Exit code 0: accepted;
    3: refused; 2: the host does not answer, or a setting or file cannot be used.
    """
    keys = None if jwks is None else _read(jwks)
    try:
        values = gather(("policy",) if statement else ("url", "policy"))
        policy = policy_from(Path(values["policy"]))
        if statement is not None:
            nonce, document = read_statement(_read(statement))
        else:
            nonce, document = challenge(str(values["url"]), timeout_seconds=float(values["timeout_seconds"]))
            if save is not None:
                save.write_bytes(write_statement(nonce, document))
        result = _appraise(document, policy, nonce=nonce, jwks=keys)
    except AttestationError as refusal:
        refused = {"verdict": "refused", "reason": str(refusal), "claims": {}, "not_checked": []}
        report(refused | {"error": refusal.code}, as_json=as_json)
        raise typer.Exit(REFUSED) from None
    except (CloisterError, OSError, ValueError) as error:
        raise unusable(str(error), as_json=as_json) from None
    report(_accepted(result, saved=statement is not None), as_json=as_json)


def challenge(url: str, *, timeout_seconds: float) -> tuple[bytes, AttestationDocument]:
    """Ask a host for evidence over a fresh nonce; nothing about it is verified yet.

    Raises:
        UnavailableError: It does not answer as a Cloister host does.
        EvidenceError: Its answer is malformed.
    """
    nonce = os.urandom(NONCE_BYTES)
    transport = HttpTransport(url)
    try:
        response = transport.post(
            "/v1/attestation",
            challenge_body(nonce),
            content_type=JSON_TYPE,
            timeout_seconds=timeout_seconds,
        )
    except TransportError as error:
        raise UnavailableError(
            f"the host cannot be reached ({error})", hint="try `cloister doctor`"
        ) from None
    finally:
        transport.close()
    if response.status != HTTP_OK:
        raise UnavailableError(
            f"the host answered {response.status}", hint="does CLOISTER_URL point at a host?"
        )
    return nonce, AttestationDocument.from_bytes(response.body)


def write_statement(nonce: bytes, document: AttestationDocument) -> bytes:
    """A host's answer to a challenge, for a file."""
    members = {"v": VERSION, "nonce": jose.b64url_encode(nonce), "document": document.to_json()}
    return json.dumps(members, indent=2).encode() + b"\n"


def read_statement(raw: bytes) -> tuple[bytes | None, AttestationDocument]:
    """Read a saved statement, or a stapled document, which answers no challenge.

    Raises:
        ConfigurationError: It is neither.
    """
    try:
        members = strict_json.load_object(raw)
        if "document" not in members:
            return None, AttestationDocument.from_json(members)
        if members.keys() != MEMBERS or members["v"] != VERSION:
            raise ValueError
        return jose.b64url_decode(members["nonce"]), AttestationDocument.from_json(members["document"])
    except (ValueError, TypeError, EvidenceError):
        raise ConfigurationError(
            "this is not a saved statement",
            hint="make one where there is a route: `cloister attest --save FILE`",
        ) from None


def _appraise(
    document: AttestationDocument, policy: AppraisalPolicy, *, nonce: bytes | None, jwks: bytes | None
) -> AttestationResult:
    if nonce is None:
        return appraise_staple(document, policy, now=time.time())
    return appraise_document(document, policy, nonce=nonce, now=time.time(), jwks=jwks)


def _accepted(result: AttestationResult, *, saved: bool) -> Mapping[str, Any]:
    keyset = result.keyset
    return {
        "verdict": "accepted",
        "reason": "the host is one that the policy accepts",
        "deployment": keyset.deployment,
        "environment": result.environment,
        "keyset": keyset.digest,
        "expires": datetime.fromtimestamp(keyset.expires, UTC).isoformat(),
        "appraised_at": result.appraised_at.isoformat(),
        "configuration": dict(keyset.config),
        "holders": [dict(holder) for holder in keyset.holders],
        "claims": {},
        "checks": list(result.checks),
        "not_checked": [*result.not_checked, *([SAVED] if saved else ())],
    }


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(2 * MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from None
    if len(content) > 2 * MAX_DOCUMENT_BYTES:
        raise ConfigurationError(f"{path} is too large")
    return content
