"""The eight steps of docs/attestation.md, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import require
from support.evidence_vectors import BY_NAME, read

PAGE = Path(__file__).parents[4] / "docs" / "attestation.md"
DOCUMENT = BY_NAME["nitro/g_2022-11-09_prod.cose"]


def steps() -> list[str]:
    section = PAGE.read_text().split("## A Nitro document by hand, in eight steps")[1].split("\n## ")[0]
    assert re.findall(r"^\*\*(\d)\.", section, re.MULTILINE) == list("12345678")
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def by_hand(folder: Path, document: bytes) -> subprocess.CompletedProcess[str]:
    require.binary("openssl")
    (folder / "document.cose").write_bytes(document)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-e", "-c", "\n".join(steps())],
        cwd=folder,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_genuine_document_passes_every_step(tmp_path: Path) -> None:
    done = by_hand(tmp_path, read(DOCUMENT.name))
    assert done.returncode == 0, done.stderr
    for line in ("root.der: OK", "leaf.pem: OK", "Verified OK", f"PCR0 {DOCUMENT.claims['pcr0']}"):
        assert line in done.stdout
    assert "nonce c678c86135de539d183acff58886d98dfb9823041af9f934bf909ac0f8d96245" in done.stdout


@pytest.mark.parametrize(
    ("name", "stops_at"),
    [
        ("nitro/x_2022-11-09_bad_signature.cose", "leaf.pem: OK"),
        ("nitro/x_2024-12-13_untrusted_root.cose", ""),
        ("nitro/g_2022-10-12_debug.cose", "Verified OK"),
        ("nitro/g_2026-02-02_nitrotpm.cose", "Verified OK"),
    ],
)
def test_a_reviewer_is_stopped_where_the_document_is_wrong(tmp_path: Path, name: str, stops_at: str) -> None:
    done = by_hand(tmp_path, read(name))
    assert done.returncode != 0
    assert stops_at in done.stdout
    assert "PCR0" not in done.stdout
