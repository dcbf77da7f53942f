"""Microsoft Azure Attestation tokens: SGX, SEV-SNP and TDX directly, or through an Azure VM's vTPM.

Source: Microsoft, "Azure Attestation token claim sets". The issuer's keys rotate and cannot be
pinned; whoever passes them vouches that they came from the issuer's published address over TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from cloister.attestation.authenticate import Support
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.tokens import Token, key_from_jwks, text_values, time_claim
from cloister.errors import EvidenceError

__all__ = ["authenticate"]

_ISSUER: Final = re.compile(
    r"https://[a-z0-9][a-z0-9-]{0,62}(\.[a-z0-9]{1,20}){0,3}\.attest\.azure\.(net|us|cn)"
)
_TYPE: Final = "x-ms-attestation-type"
_ISOLATION: Final = "x-ms-isolation-tee"

# The claims that say whether memory can be read from outside, by kind of TEE; older names count as well. All
# that are there must be false, and none at all means that it can.
_DEBUG_CLAIMS: Final = {
    "sgx": ("x-ms-sgx-is-debuggable", "is-debuggable"),
    "sevsnpvm": ("x-ms-sevsnpvm-is-debuggable",),
    "tdxvm": ("tdx_td_attributes_debug", "x-ms-tdxvm-is-debuggable"),
}
_DEBUG_FLAGS: Final = (
    "x-ms-azurevm-bootdebug-enabled",
    "x-ms-azurevm-kerneldebug-enabled",
    "x-ms-azurevm-hypervisordebug-enabled",
    "x-ms-azurevm-testsigning-enabled",
)


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:  # noqa: ARG001 (one signature for all formats)
    """Authenticate a token under the issuer's keys.

    Raises:
        EvidenceError: It is not genuine, or its issuer is not Azure Attestation.
    """
    # (1) The issuer, before its keys are used.
    token = Token.parse(raw)
    issuer = token.unverified_claims.get("iss")
    if not isinstance(issuer, str) or _ISSUER.fullmatch(issuer) is None:
        raise EvidenceError("iss: not an Azure Attestation provider (step: parse)")
    if token.header.get("jku", f"{issuer}/certs") != f"{issuer}/certs":
        raise EvidenceError("jku: not the issuer's address (step: parse)")
    # (2) The signature.
    claims = token.verify(key_from_jwks(support.jwks, token.header))
    # (3) What it says.
    kind = claims.get(_TYPE)
    if not isinstance(kind, str):
        raise EvidenceError(f"{_TYPE}: absent (step: parse)")
    tee, tee_kind = _tee(claims, kind)
    not_checked = [f"jwks: taken from the caller as the keys of {issuer}"]
    if tee is None:
        not_checked.append("isolation: the token speaks of measured boot only, not of a TEE")
    return AuthenticEvidence(
        format=Format.AZURE_MAA,
        environment="hardware" if support.trust_anchors is None else "test",
        claims=claims,
        binding={"nonce": tuple(_nonces(claims))},
        debug=_is_debug(claims, tee, tee_kind),
        issued_at=time_claim(claims, "iat"),
        not_before=time_claim(claims, "nbf"),
        not_after=time_claim(claims, "exp"),
        checks=("issuer", "RS256 signature under the issuer's key", "token life"),
        not_checked=tuple(not_checked),
    )


def _tee(claims: Mapping[str, Any], kind: str) -> tuple[Mapping[str, Any] | None, str]:
    """The claims about the TEE itself, and its kind."""
    if kind in _DEBUG_CLAIMS:
        return claims, kind
    isolation = claims.get(_ISOLATION)
    if isinstance(isolation, Mapping):
        return isolation, str(isolation.get(_TYPE))
    return None, ""


def _is_debug(claims: Mapping[str, Any], tee: Mapping[str, Any] | None, kind: str) -> bool:
    flags = any(claims.get(name, False) is not False for name in _DEBUG_FLAGS)
    debuggers = claims.get("x-ms-azurevm-debuggersdisabled", True) is not True
    return flags or debuggers or (tee is not None and _is_debuggable(tee, kind))


def _is_debuggable(tee: Mapping[str, Any], kind: str) -> bool:
    said = [tee[name] for name in _DEBUG_CLAIMS.get(kind, ()) if name in tee]
    return not said or any(value is not False for value in said)


def _nonces(claims: Mapping[str, Any]) -> Iterator[bytes]:
    """The relying party's nonce, wherever this kind of token carries it."""
    yield from text_values(claims.get("nonce"))
    runtime = claims.get("x-ms-runtime")
    if isinstance(runtime, Mapping):
        yield from text_values(runtime.get("nonce"))
        payload = runtime.get("client-payload")
        if isinstance(payload, Mapping):
            yield from text_values(payload.get("nonce"))
