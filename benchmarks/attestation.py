"""Full verification per format, in milliseconds: `python benchmarks/attestation.py`.

Peers run in the same process where they are installed; one that is missing is named.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.evidence_vectors import BY_NAME, read

ROUNDS = 60
BUDGET_MS = {"nitro": 4.0}
NAMES = (
    "nitro/g_2022-11-09_prod.cose",
    "nitro/g_2025-12-25_prod_indefinite.cose",
    "snp/v2_milan_vcek.report.bin",
    "snp/v3_milan_vlek_aws.report.bin",
    "snp/v5_genoa_vcek.report.bin",
    "tdx/v4_spr.quote.bin",
    "tdx/v4_with_collateral.quote.bin",
    "tdx/v5_a.quote.bin",
    "sgx/v3_with_collateral.quote.bin",
    "tpm/vaportpm_gcp-amd.json",
    "tpm/az_snp_quote.json",
    "maa/azurevm_2023_weu.jwt",
    "gcp_cs/oidc_2025-12-02_a.jwt",
)


def milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """Median and best of `ROUNDS` runs, after one to warm up."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times)


def peers() -> dict[str, Callable[[], object]]:
    """Verifiers from PyPI, on the document they understand; the same checks as far as they go."""
    found: dict[str, Callable[[], object]] = {}
    try:
        import dcap_qvl
    except ImportError:
        print("peer dcap-qvl (TDX, SGX): not installed")
    else:
        document = BY_NAME["tdx/v4_with_collateral.quote.bin"]
        collateral = dcap_qvl.QuoteCollateralV3.from_json(read(document.collateral).decode())
        now = int(document.at.timestamp())
        found["dcap-qvl (Rust), tdx v4"] = lambda: dcap_qvl.verify(read(document.name), collateral, now)
    return found


def main() -> None:
    print(f"{'document':46} {'median ms':>10} {'best ms':>10}")
    for name in NAMES:
        median, best = milliseconds(BY_NAME[name].authenticate)
        budget = BUDGET_MS.get(BY_NAME[name].format, 0)
        note = f"  budget {budget} ms" if budget else ""
        print(f"{name:46} {median:10.2f} {best:10.2f}{note}")
    for name, work in peers().items():
        median, best = milliseconds(work)
        print(f"{name:46} {median:10.2f} {best:10.2f}")


if __name__ == "__main__":
    main()
