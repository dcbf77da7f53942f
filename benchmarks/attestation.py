"""Full verification per format, in milliseconds of CPU, beside the verifiers that can be had from PyPI.

Verification waits for nothing, so CPU time is its time on an idle machine, and a busy one disturbs it less.

Peers do what they do: dcap-qvl (Rust) evaluates the TCB as we do; epsilon-attestation-verifier checks Nitro's
signature and chain without revocation; joserfc checks the RS256 signature of a token only. For SEV-SNP and
TPM evidence nothing on PyPI verifies offline. A peer that is not installed is left out.
"""

from __future__ import annotations

import base64
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cloister.attestation import Format, certificates
from figures import Row, show
from support.evidence_vectors import BY_NAME, DOCUMENTS, FOLDER, Document, read

BUDGET_MS: Mapping[Format, float] = {Format.NITRO: 4.0}
ROUNDS = 40
Work = Callable[[], object]


def cpu_ms(work: Work) -> float:
    """Median CPU time of one call of this thread, in milliseconds, after a call to warm up."""
    work()
    times = []
    for _ in range(ROUNDS):
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return statistics.median(times) * 1e3


def rows() -> list[Row]:
    """One row a document never seen before, and one for Nitro where certificates come again."""
    again = BY_NAME["nitro/g_2022-11-09_prod.cose"]
    return [
        *(_row(document) for document in DOCUMENTS),
        Row(
            what="nitro, certificates seen before",
            ours=cpu_ms(again.authenticate),
            unit="ms",
            budget=BUDGET_MS[Format.NITRO],
        ),
    ]


def cold(document: Document) -> object:
    """Authenticate with nothing remembered."""
    certificates._VALIDATED.clear()  # noqa: SLF001 (what is measured)
    certificates._parsed.cache_clear()  # noqa: SLF001 (as above)
    return document.authenticate()


def _row(document: Document) -> Row:
    name, work = _peer(document)
    return Row(
        what=document.name,
        ours=cpu_ms(lambda: cold(document)),
        unit="ms",
        peer=name,
        theirs=None if work is None else cpu_ms(work),
        budget=BUDGET_MS.get(document.format),
    )


def _peer(document: Document) -> tuple[str, Work | None]:
    make = {
        Format.NITRO: _epsilon,
        Format.TDX: _dcap_qvl,
        Format.SGX: _dcap_qvl,
        Format.AZURE_MAA: _joserfc,
        Format.GCP_CONFIDENTIAL_SPACE: _joserfc,
    }.get(document.format)
    try:
        return ("", None) if make is None else make(document)
    except ImportError as missing:
        print(f"peer not installed: {missing.name}")
        return "", None


def _epsilon(document: Document) -> tuple[str, Work | None]:
    from epsilon_verifier.verifier import verify_attestation

    logging.disable(logging.CRITICAL)
    text = base64.b64encode(read(document.name)).decode()
    root = str(FOLDER / "nitro/aws_nitro_root_g1.pem")

    def verify() -> object:
        return verify_attestation(text, aws_root_cert_path=root, allow_expired=True)

    result = verify()
    return ("epsilon", verify) if getattr(result, "certificate_chain_valid", False) else ("", None)


def _dcap_qvl(document: Document) -> tuple[str, Work | None]:
    import dcap_qvl

    if not document.collateral:
        return "", None
    collateral = dcap_qvl.QuoteCollateralV3.from_json(read(document.collateral).decode())
    raw, now = read(document.name), int(document.at.timestamp())
    return "dcap-qvl", lambda: dcap_qvl.verify(raw, collateral, now)


def _joserfc(document: Document) -> tuple[str, Work | None]:
    from joserfc import jws
    from joserfc.jwk import KeySet

    keys, token = KeySet.import_key_set(json.loads(read(document.jwks))), read(document.name).strip()
    return "joserfc", lambda: jws.deserialize_compact(token, keys, algorithms=["RS256"])


if __name__ == "__main__":
    show("attestation", rows())
