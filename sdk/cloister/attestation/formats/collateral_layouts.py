"""How Intel's collateral is written down: members of SPEC.md 5, or the shapes of other tools.

Read are the snake case of dcap-qvl, the camel case of others, PCS and PCCS answers as they come (`{"tcbInfo":
..., "signature": ...}`), answers with `body` and `headers`, issuer chains percent-encoded as in headers, and
revocation lists in hex, base64 or PEM. None of it is trusted; what Intel signed is kept byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from cloister.attestation.encodings import any_base64
from cloister.jose import strict_json

__all__ = ["SignedText", "WrittenCollateral"]

_SIGNED: Final = re.compile(
    r'\s*\{\s*"(?:tcbInfo|enclaveIdentity)"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*',
    re.DOTALL,
)
_NAMES: Final = {
    "enclaveidentity": "qeidentity",
    "sgxenclaveidentityissuerchain": "qeidentityissuerchain",
    "enclaveidentityissuerchain": "qeidentityissuerchain",
    "enclaveidentitysignature": "qeidentitysignature",
    "sgxtcbinfoissuerchain": "tcbinfoissuerchain",
    "rootcrl": "rootcacrl",
    "sgxpckcrl": "pckcrl",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedText:
    """A text that Intel signed, its signature, and the signer's chain in PEM; unverified."""

    text: bytes
    signature: bytes
    issuer_chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCollateral:
    """Collateral as it was written down; unverified."""

    tcb_info: SignedText
    qe_identity: SignedText
    revocation_lists: tuple[bytes, bytes]

    @classmethod
    def parse(cls, raw: bytes) -> WrittenCollateral:
        """Read any of the layouts.

        Raises:
            ValueError: A part is missing or malformed.
        """
        members: dict[str, Any] = {}
        for name, value in _flat(strict_json.load_object(raw)):
            if members.setdefault(name, value) is not value:
                raise ValueError
        return cls(
            tcb_info=_signed(members, "tcbinfo"),
            qe_identity=_signed(members, "qeidentity"),
            revocation_lists=(_list(members["rootcacrl"]), _list(members["pckcrl"])),
        )


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Members under one spelling; what stands under `headers` beside a `body` counts as a member."""
    for name, value in table.items():
        key = re.sub(r"[-_]", "", name).lower()
        if isinstance(value, Mapping) and value.keys() == {"body", "headers"}:
            yield _NAMES.get(key, key), value["body"]
            yield from _flat(value["headers"])
        else:
            yield _NAMES.get(key, key), value


def _signed(members: Mapping[str, Any], name: str) -> SignedText:
    value = members[name]
    if isinstance(value, Mapping):
        value = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if (whole := _SIGNED.fullmatch(value)) is not None:
        text, signature = whole[1], whole[2]
    else:
        text, signature = value, members[f"{name}signature"]
    chain = members[f"{name}issuerchain"]
    return SignedText(
        text=text.encode(),
        signature=bytes.fromhex(signature),
        issuer_chain=(unquote(chain) if "%" in chain else chain).encode(),
    )


def _list(text: str) -> bytes:
    if "-----BEGIN " in text:
        return text.encode()
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]+", text) else any_base64(text)
