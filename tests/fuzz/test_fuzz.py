"""Every parser of hostile bytes, fuzzed under coverage for a bounded number of inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloister.attestation import Format
from support import require
from support.evidence_vectors import DOCUMENTS, FOLDER

RUNS = 4_000
MAX_BYTES = 8_192
HARNESS = Path(__file__).with_name("harness.py")
SEEDS = {
    "report": "snp/*.report.bin",
    "quote": "*/*.quote.bin",
    "tpm-container": "tpm/*.json",
    "hcl-report": "tpm/*.bin",
    "token": "*/*.jwt",
    "jwks": "*/jwks*.json",
    "endorsements": "snp/*.der",
    "collateral": "*/*.collateral.json",
    "remote-function": "../../events/gcp/bigquery*.json",
}
OTHERS = ("tpm-attest", "tpm-signature", "document", "keyset", "policy", "policy-json")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", [*Format, *SEEDS, *OTHERS])
def test_only_our_errors_come_out(target: str, tmp_path: Path) -> None:
    require.module("atheris", install="pip install atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = [FOLDER / document.name for document in DOCUMENTS if document.format == target]
    seeds += sorted(FOLDER.glob(SEEDS[target])) if target in SEEDS else []
    for seed in seeds:
        (corpus / seed.name).write_bytes(seed.read_bytes())
    options = [f"-runs={RUNS}", f"-max_len={MAX_BYTES}", "-seed=1", "-rss_limit_mb=0", "-timeout=30"]
    done = subprocess.run(
        [sys.executable, HARNESS, target, *options, f"-artifact_prefix={tmp_path}/", corpus],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr, "libFuzzer did not run to its end"
