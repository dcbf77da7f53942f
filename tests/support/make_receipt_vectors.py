"""Make tests/vectors/receipts/vectors.json anew: `python tests/support/make_receipt_vectors.py`.

Keys and salts differ from run to run; what is checked is that an independent reader of SPEC.md verifies them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rfc8785

sys.path.insert(0, str(Path(__file__).parents[1]))

from cloister import jose
from cloister.attestation.formats import simulated
from cloister.protocol import AttestationDocument, KeysetKey, sign_keyset, staple_nonce, statement
from cloister.receipts.bundle import bundle
from cloister.receipts.entry import prove_document
from cloister.receipts.receipt import PROFILE, issue_receipt
from cloister.receipts.siem import encode_line
from support.log_double import DAY, NOW, MemoryLog, salt_of

VECTORS = Path(__file__).parents[1] / "vectors" / "receipts" / "vectors.json"


def entry(number: int, **changes: Any) -> bytes:
    members = {
        "id": f"{number:032x}",
        "at": NOW * 1000 + number,
        "tenant": "acme",
        "principal": "admin",
        "kind": "person",
        "on_behalf_of": "",
        "correlation_id": "c0ffee",
        "act": "key.create",
        "resource": f"key/k{number}",
        "outcome": "done",
        "detail": {"kid": f"k{number}.1"},
    }
    return rfc8785.dumps({**members, **changes})


def make() -> dict[str, Any]:
    log, receipt_key = MemoryLog(), jose.generate_key("EdDSA", kid="receipt-1")
    jwks = {"log": log.key.public().to_jwk(), "receipt": receipt_key.public().to_jwk()}
    log.keyset = sign_keyset(
        keys=tuple(
            KeysetKey(
                role=role,
                kid=jwk["kid"],
                jwk={name: value for name, value in jwk.items() if name != "kid"},
                not_before=NOW - 60,
                expires=NOW + DAY,
            )
            for role, jwk in jwks.items()
        ),
        config={
            "root": {"environment": "simulated", "origin": "generated"},
            "unseal": "file",
            "sandbox": {"level": "namespaces", "missing": []},
            "debug": [],
        },
        holders=(),
        issued_at=NOW,
        expires=NOW + DAY,
        deployment_key=log.deployment_key,
    )
    others = [bytes([number]) * 32 for number in range(20)]
    log.grow(*others[:6])
    first = log.head()
    log.grow(*others[6:])
    mine = {
        1: entry(1),
        2: entry(2, outcome="refused"),
        9: entry(9, resource='key/"a|b=c\\d"'),
        17: entry(17),
    }
    lines = log.export(mine)
    head = log.head()
    evidence = AttestationDocument(
        format="simulated",
        evidence=simulated.sign(
            measurement="sha256:vectors",
            statement=statement(log.keyset, staple_nonce(log.keyset)),
            nonce=staple_nonce(log.keyset),
            issued_at=NOW,
        ),
        keyset=log.keyset.token,
    )
    receipt = issue_receipt(
        {
            "eat_profile": PROFILE,
            "eat_nonce": jose.b64url_encode(bytes(32)),
            "deployment": log.keyset.deployment,
            "keyset": log.keyset.digest,
            "iat": NOW + 1,
            "tenant": "acme",
            "act": "function.invoke",
            "resource": "function/check-pin",
            "outcome": "done",
            "leaf": jose.b64url_encode(log.leaves[9]),
        },
        {
            "principal": "app",
            "result_digest": jose.b64url_encode(bytes(32)),
            "rows": {"count": 1, "failed": 0},
        },
        receipt_id=f"{9:032x}",
        key=receipt_key,
    )
    proof = {
        "index": 9,
        "path": jose.b64url_encode(b"".join(log.inclusion(9, head.size))),
        "head": head.token,
    }
    return {
        "deployment": log.keyset.deployment,
        "leaf": {
            "salt": jose.b64url_encode(salt_of(1)),
            "entry": mine[1].decode(),
            "leaf": jose.b64url_encode(log.leaves[1]),
        },
        "consistency": {
            "keyset": log.keyset.token,
            "first": log.head(6, time=first.time).token,
            "second": head.token,
            "path": jose.b64url_encode(b"".join(log.consistency(6, head.size))),
        },
        "export": {name: [encode_line(line, name) for line in lines] for name in ("jsonl", "ocsf", "cef")},
        "entry_proof": prove_document(
            {
                **proof,
                "salt": jose.b64url_encode(salt_of(9)),
                "entry": mine[9].decode(),
                "evidence": evidence.to_json(),
            }
        ),
        "bundle": bundle(receipt, evidence=evidence.to_json(), log=proof),
        "bundle_without_disclosures": bundle(receipt, evidence=evidence.to_json(), log=None, disclose=[]),
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make(), indent=1) + "\n")
