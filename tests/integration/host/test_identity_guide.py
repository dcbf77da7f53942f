"""The guide to identity runs as it is written."""

from __future__ import annotations

import json

from cloister_host.embedded import embedded_host
from support.documents import DOCS, run_blocks


def test_the_guide_runs_as_written(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with embedded_host(tmp_path) as host:
        tenant = host.tenant()
        tenant.admin.call("key.create", {"key": "ssn", "purpose": "seal"})
        printed = run_blocks(DOCS / "identity.md", folder, tenant.environment("admin"))
        tenant.admin.close()
    keys = [json.loads(line) for line in printed[0].splitlines()[-2:]]
    assert all(key["expires"] for key in keys[:1])
    assert "lambda_source_function_arn" in printed[1]
    explained = printed[4]
    assert "no grant counts: " in explained
    assert "decrypt is never allowed to a principal of kind faas" in explained
    assert json.loads(printed[5].splitlines()[-1])["state"] == "executed"
