"""Every mitigation in the threat model names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(test_\w+\.py)(?:::(test_\w+))?`")
DOCUMENTS = ("threat-model.md", "attestation.md")


def named_tests():
    return [
        (document, file, test)
        for document in DOCUMENTS
        for file, test in NAMED.findall((ROOT / "docs" / document).read_text())
    ]


@pytest.mark.parametrize(("document", "file", "test"), named_tests())
def test_the_test_of_a_mitigation_exists(document, file, test):
    paths = list((ROOT / "tests").rglob(file))
    assert paths, f"{document} names {file}, which is not there"
    assert any(f"def {test}" in path.read_text() for path in paths)


def test_no_row_is_without_a_test():
    table = (ROOT / "docs" / "threat-model.md").read_text().split("fails without them")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert all(NAMED.search(row) for row in rows)
