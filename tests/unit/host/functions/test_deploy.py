"""Deploying, moving aliases, disabling."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from cloister import jose
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    QuorumNeededError,
    UnavailableError,
)
from cloister.function import Manifest
from cloister.function.bundle import _write, build_bundle
from support.workbench import TENANT, Workbench

SOURCE = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-adult", output=boolean())
def is_adult(age: Annotated[int, sealed("ages")]) -> bool:
    return age >= 18
"""


def deploy(bench: Workbench, data: bytes, **more: str) -> dict[str, object]:
    result: dict[str, object] = bench.call("function.deploy", {"bundle": jose.b64url_encode(data), **more})
    return result


def test_deploying_tells_digest_and_needs(bench: Workbench) -> None:
    bundle = build_bundle(bench.write(SOURCE))
    deployed = deploy(bench, bundle.data)
    assert deployed == {
        "name": "is-adult",
        "digest": bundle.digest,
        "alias": None,
        "needs": [{"action": "use-in-function", "resource": "key/ages"}],
        "notes": [],
        "signed_by": "",
    }


def test_deploying_again_changes_nothing(bench: Workbench) -> None:
    bundle = build_bundle(bench.write(SOURCE))
    assert deploy(bench, bundle.data) == deploy(bench, bundle.data)
    assert len(bench.call("function.list", {})["functions"][0]["versions"]) == 1


def test_code_that_declares_less_than_its_manifest_is_refused(bench: Workbench) -> None:
    honest = build_bundle(bench.write(SOURCE))
    other = build_bundle(bench.write(SOURCE.replace('sealed("ages")', 'sealed("everything")')))
    forged = _write({**honest.files, "manifest.json": other.manifest.canonical()})
    with pytest.raises(FunctionError, match="does not declare what the manifest says"):
        deploy(bench, forged)
    assert bench.call("function.list", {})["functions"] == []


def test_code_that_does_not_import_is_refused_by_class_name_only(bench: Workbench) -> None:
    built = build_bundle(bench.write(SOURCE))
    manifest: Manifest = built.manifest
    broken = _write({"function.py": b"raise KeyError('4711')", "manifest.json": manifest.canonical()})
    with pytest.raises(FunctionError, match="cannot be imported: KeyError") as caught:
        deploy(bench, broken)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("bundle", ["", "!", "AAAA"])
def test_a_bundle_that_is_none_is_refused(bench: Workbench, bundle: str) -> None:
    with pytest.raises(CloisterError):
        bench.call("function.deploy", {"bundle": bundle})


def test_without_the_right_to_deploy_nothing_is_kept(bench: Workbench) -> None:
    bundle = build_bundle(bench.write(SOURCE))
    payload = {"bundle": jose.b64url_encode(bundle.data)}
    with pytest.raises(DeniedError):
        bench.call("function.deploy", payload, caller=bench.caller("lambda", "faas"))
    assert bench.call("function.list", {})["functions"] == []


def test_moving_an_alias_needs_a_right_of_its_own(bench: Workbench) -> None:
    bench.grant("lambda", "function.deploy", "function/is-adult")
    payload = {"bundle": jose.b64url_encode(build_bundle(bench.write(SOURCE)).data)}
    deployer = bench.caller("lambda", "faas")
    with pytest.raises(DeniedError, match=r"function\.manage"):
        bench.call("function.deploy", {**payload, "alias": "prod"}, caller=deployer)
    assert bench.call("function.deploy", payload, caller=deployer)["name"] == "is-adult"


def test_an_alias_moves_forward_and_back(bench: Workbench) -> None:
    first = bench.deploy(SOURCE)
    second = bench.deploy(SOURCE.replace("18", "21"))

    def points_to() -> str:
        aliases: dict[str, str] = bench.call("function.list", {})["functions"][0]["aliases"]
        return aliases["prod"]

    assert points_to() == second.digest
    bench.call("function.alias", {"function": "is-adult", "alias": "prod", "digest": first.digest})
    assert points_to() == first.digest


@pytest.mark.parametrize("change", [{"function": "other"}, {"digest": "0" * 64}], ids=["function", "digest"])
def test_an_alias_points_to_nothing_that_is_not_deployed(bench: Workbench, change: dict[str, str]) -> None:
    good = {"function": "is-adult", "alias": "prod", "digest": bench.deploy(SOURCE).digest}
    with pytest.raises(ConfigurationError, match="no such"):
        bench.call("function.alias", {**good, **change})


def test_a_disabled_function_does_not_run_until_it_is_enabled(bench: Workbench) -> None:
    bench.key("ages")
    bench.deploy(SOURCE)
    age = bench.seal("ages", 20)
    bench.call("function.disable", {"function": "is-adult"})
    with pytest.raises(ConfigurationError, match="disabled"):
        bench.invoke("is-adult@prod", inputs={"age": age})
    bench.call("function.disable", {"function": "is-adult", "disabled": False})
    assert bench.invoke("is-adult@prod", inputs={"age": age})["value"] is True


def test_two_digests_run_side_by_side(bench: Workbench) -> None:
    bench.key("ages")
    bench.deploy(SOURCE, alias="old")
    bench.deploy(SOURCE.replace("18", "21"), alias="new")
    age = bench.seal("ages", 20)
    assert bench.invoke("is-adult@old", inputs={"age": age})["value"] is True
    assert bench.invoke("is-adult@new", inputs={"age": age})["value"] is False


def test_another_tenant_sees_none_of_it(bench: Workbench) -> None:
    bench.deploy(SOURCE)
    operator = bench.caller("operator", tenant="system")
    bench.call("tenant.create", {"tenant": "rival"}, caller=operator)
    assert bench.call("function.list", {}, caller=bench.caller(tenant="rival"))["functions"] == []


@pytest.mark.parametrize(
    ("table", "found", "put"),
    [("functions", "false", "true"), ("function_versions", '"ages"', '"pins"')],
)
def test_a_row_edited_in_the_database_is_found_out(
    bench: Workbench, table: str, found: str, put: str
) -> None:
    bench.key("ages")
    bench.deploy(SOURCE)
    found, put = found.replace('"', '\\"'), put.replace('"', '\\"')
    edit = f"UPDATE {table} SET content = replace(content, ?, ?) WHERE tenant = ? AND instr(content, ?)"
    with closing(sqlite3.connect(bench.folder / "host.db")) as database, database:
        assert database.execute(edit, (found, put, TENANT, found)).rowcount == 1
    with pytest.raises(UnavailableError, match="changed outside the host"):
        bench.invoke("is-adult@prod", inputs={"age": "x"})


def test_a_digest_under_quorum_is_deployed_after_its_approval_and_no_other(bench: Workbench) -> None:
    bench.call("principal.create", {"principal": "ann", "kind": "person"})
    ann = bench.caller("ann", "person")
    bench.grant("ann", "approve", "act/*")
    bench.call("quorum.set", {"act": "function.deploy", "approvals": 1})
    data = build_bundle(bench.write(SOURCE)).data
    with pytest.raises(QuorumNeededError) as caught:
        deploy(bench, data)
    bench.call("proposal.approve", {"proposal": caught.value.proposal_id}, caller=ann)
    with pytest.raises(QuorumNeededError):
        deploy(bench, build_bundle(bench.write(SOURCE.replace("18", "21"))).data)
    assert bench.call("function.list", {})["functions"] == []
    assert deploy(bench, data)["name"] == "is-adult"


def test_a_module_that_is_not_python_is_refused_even_if_nothing_imports_it(bench: Workbench) -> None:
    bench.key("ages")
    bundle = build_bundle(bench.write(SOURCE, unused="def ("))
    with pytest.raises(FunctionError, match="cannot be imported: SyntaxError"):
        deploy(bench, bundle.data)
    assert bench.call("function.list", {})["functions"] == []


def test_imports_of_no_use_in_the_sandbox_are_noted(bench: Workbench) -> None:
    folder = bench.write(
        SOURCE, other="import socket, json\nfrom urllib.parse import urlsplit\nimport urllib.request\n"
    )
    assert deploy(bench, build_bundle(folder).data)["notes"] == [
        "other.py:1 imports socket: the network is reached through declared origins only",
        "other.py:3 imports urllib: the network is reached through declared origins only",
    ]


def test_an_alias_rolls_back_as_often_as_it_moved(bench: Workbench) -> None:
    first, second, third = (bench.deploy(SOURCE + f"# {n}\n", grant=False).digest for n in range(3))
    back = {"function": "is-adult", "alias": "prod"}
    assert bench.call("function.rollback", back) == {**back, "digest": second, "before": third}
    assert bench.call("function.rollback", back)["digest"] == first
    with pytest.raises(ConfigurationError, match="nowhere to go back"):
        bench.call("function.rollback", back)
    assert bench.call("function.list", {})["functions"][0]["aliases"] == {"prod": first}


def test_rolling_back_needs_the_right_to_move_aliases(bench: Workbench) -> None:
    bench.deploy(SOURCE, grant=False)
    with pytest.raises(DeniedError):
        bench.call(
            "function.rollback", {"function": "is-adult", "alias": "prod"}, caller=bench.caller("lambda")
        )
