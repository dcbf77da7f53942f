"""Feed one parser with atheris: `python tests/fuzz/harness.py TARGET [libFuzzer options] [CORPUS]`.

Only errors of ours may come out. `tests/fuzz/test_fuzz.py` runs every target for a bounded number of inputs;
for longer, run this by hand, with a corpus directory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["cloister", "cloister_gcp"]):
    from cloister import attestation
    from cloister.attestation import AppraisalPolicy, Format, formats
    from cloister.attestation.certificates import load_endorsements
    from cloister.attestation.formats import azure_hcl, dcap, sev_snp, tpm_container, tpm_quote
    from cloister.attestation.formats.collateral_layouts import WrittenCollateral
    from cloister.attestation.formats.tokens import Token, key_from_jwks
    from cloister.errors import CloisterError
    from cloister.protocol.attest import AttestationDocument
    from cloister.protocol.handover_messages import claimed_nonce, read_hello
    from cloister.protocol.keyset import verify_keyset
    from cloister_gcp import Sealed, remote_function
    from cloister_gcp.request import RemoteRequest
    from support.evidence_vectors import DOCUMENTS

    for module in iter_modules(formats.__path__):  # they are loaded by name, and would not be instrumented
        import_module(f"{formats.__name__}.{module.name}")

AT = DOCUMENTS[0].at
Target = Callable[[bytes], object]


def authenticate(format_: Format) -> Target:
    """The whole way of a document, with its bytes as everything that may come beside it."""

    def run(raw: bytes) -> object:
        half = len(raw) // 2
        return attestation.authenticate(
            raw, format=format_, at=AT, endorsements=[raw[half:]], collateral=raw[half:], jwks=raw[half:]
        )

    return run


def collateral(raw: bytes) -> object:
    """Collateral raises ValueError by contract, since its caller turns it into one error."""
    try:
        return WrittenCollateral.parse(raw)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


class Enclave:
    """Answers whatever it is asked with as many values."""

    def invoke_batch(self, _function: str, /, **columns: Any) -> SimpleNamespace:
        """One value a row."""
        json.dumps(columns, allow_nan=False).encode()
        return SimpleNamespace(values=[True] * len(columns["b"]), errors={})


def remote(raw: bytes) -> object:
    """A request of BigQuery, all the way to the enclave and back."""
    kinds = {"a": str | None, "b": int | None, "c": dict | None, "d": Sealed | None}
    endpoint = remote_function("f@prod", args=kinds, returns=bool, client=Enclave())
    request = RemoteRequest.parse(raw)
    replies = endpoint.declaration.replies(request, endpoint.client())
    assert len(replies) == len(request.calls)
    return replies


TARGETS: dict[str, Target] = {
    **{format_.value: authenticate(format_) for format_ in Format},
    "report": sev_snp.Report.parse,
    "quote": dcap.Quote.parse,
    "tpm-container": tpm_container.Container.parse,
    "tpm-attest": tpm_quote.Attest.parse,
    "tpm-signature": tpm_quote.Signature.parse,
    "hcl-report": azure_hcl.HclReport.parse,
    "token": Token.parse,
    "jwks": lambda raw: key_from_jwks(raw, {"kid": "k1"}),
    "endorsements": lambda raw: load_endorsements([raw]),
    "collateral": collateral,
    "document": AttestationDocument.from_bytes,
    "handover-hello": read_hello,
    "handover-claim": claimed_nonce,
    "keyset": lambda raw: verify_keyset(raw.decode("latin-1"), deployment=None),
    "remote-function": remote,
    "policy": lambda raw: AppraisalPolicy.from_toml(raw.decode("latin-1")),
    "policy-json": lambda raw: AppraisalPolicy.from_json(raw.decode("latin-1")),
}


def main() -> None:
    """Fuzz the named target until libFuzzer's options end it."""
    program, name, *options = sys.argv
    target = TARGETS[name]

    def one_input(raw: bytes) -> None:
        try:
            target(raw)
        except CloisterError:
            return

    atheris.Setup([program, *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
