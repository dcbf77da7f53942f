"""`cloister function`: what works without a host, and what is asked of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloister import jose
from cloister._cli import _running as running
from cloister._cli import function as commands
from cloister._cli import signer
from cloister.envelope import open_with, seal_to
from cloister.errors import ConfigurationError
from cloister.function.bundle import BUNDLE_CONTEXT, read_bundle
from cloister.function.signing import verify_bundle

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Every operation that a host would have been asked for."""
    operations: list[tuple[str, Any]] = []

    def call(op: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        operations.append((op, dict(payload)))
        if op == "function.deploy" and "bundle" not in payload:
            return {"digest": "d", "needs": []}
        if op == "function.deploy":
            bundle = read_bundle(jose.b64url_decode(payload["bundle"]))
            needs = [need._asdict() for need in bundle.manifest.needs]
            return {"name": bundle.manifest.name, "digest": bundle.digest, "alias": None, "needs": needs}
        entry = {"function": "f", "entry": "1", "sealed": "s", "principal": "p", "outcome": "done"}
        return {
            "functions": [{"name": "one"}],
            "jobs": [],
            "entries": [{**entry, "correlation_id": "c"}],
            "value": True,
            "padding": "   ",
        }

    monkeypatch.setattr(commands, "call", call)
    monkeypatch.setattr(running, "call", call)
    monkeypatch.setattr(
        running, "open_texts", lambda sealed, _contexts: [f"opened {text}" for text in sealed]
    )
    return operations


def run(*arguments: str, text: str = "") -> str:
    result = RUNNER.invoke(commands.app, arguments, input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_new_function_passes_its_own_test_and_builds() -> None:
    run("new", "valid-card")
    run("test", "valid_card")
    built = json.loads(run("build", "valid_card", "--out", "card.zip"))
    assert built["needs"] == [{"action": "use-in-function", "resource": "key/cards"}]
    assert read_bundle(Path("card.zip").read_bytes()).digest == built["digest"]


def test_nothing_is_written_over() -> None:
    run("new", "valid-card")
    with pytest.raises(ConfigurationError, match="exists already"):
        run("new", "valid-card")


def test_a_name_that_cannot_be_used_writes_nothing(here: Path) -> None:
    with pytest.raises(ConfigurationError, match="name of the function"):
        run("new", "../evil")
    assert not list(here.iterdir())


def test_a_failing_test_fails_the_command() -> None:
    run("new", "valid-card")
    Path("valid_card/test_function.py").write_text("def test_it() -> None:\n    assert False\n")
    assert RUNNER.invoke(commands.app, ["test", "valid_card"]).exit_code == 1


def test_a_folder_without_tests_is_told_how() -> None:
    run("new", "valid-card")
    Path("valid_card/test_function.py").unlink()
    with pytest.raises(ConfigurationError, match="has no tests"):
        run("test", "valid_card")


def test_deploying_grants_nothing_unless_told(asked: list[tuple[str, Any]]) -> None:
    run("new", "valid-card")
    assert json.loads(run("deploy", "valid_card", "--alias", "prod"))["granted"] is False
    assert [op for op, _ in asked] == ["function.deploy"]
    assert asked[0][1]["alias"] == "prod"


def test_deploying_grants_exactly_what_the_manifest_needs(asked: list[tuple[str, Any]]) -> None:
    run("new", "valid-card")
    digest = json.loads(run("deploy", "valid_card", "--grant"))["digest"]
    assert asked[1:] == [
        (
            "grant.create",
            {"principal": f"function:{digest}", "action": "use-in-function", "resource": "key/cards"},
        )
    ]


def test_a_bundle_is_signed_where_there_is_no_host_and_deployed_elsewhere(
    asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("new", "valid-card")
    public = json.loads(_signer("create", "ci", "--out", "ci.key"))
    assert "d" not in public
    assert Path("ci.key").stat().st_mode & 0o077 == 0
    built = json.loads(run("build", "valid_card", "--out", "card.zip"))
    signature = run("sign", "card.zip", "ci.key", "--tenant", "acme").strip()
    verify_bundle(signature, public, digest=built["digest"], function="valid-card", tenant="acme")
    run("deploy", "card.zip", "--signature", signature)
    monkeypatch.setattr(commands, "tenant_of_settings", lambda: "acme")
    run("deploy", "valid_card", "--sign", "ci.key")
    assert [payload["signature"] for _, payload in asked] == [signature, signature]


def test_a_sealed_bundle_is_deployed_as_it_is(
    asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("new", "valid-card")
    key = jose.generate_key("HPKE-10-KE", kid="code.1")
    monkeypatch.setattr(
        commands,
        "seal_bundle",
        lambda data, name: seal_to(data, jose.public_jwk(key), kid=f"{name}.1", context=BUNDLE_CONTEXT),
    )
    run("build", "valid_card", "--out", "card.sealed", "--seal", "code")
    run("deploy", "card.sealed")
    opened = open_with(asked[0][1]["sealed"], key, BUNDLE_CONTEXT)
    assert isinstance(opened, bytes)
    assert read_bundle(opened).manifest.name == "valid-card"


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "valid_card", "--seal", "code"],
        ["deploy", "valid_card", "--sign", "valid_card/function.py"],
        ["sign", "valid_card/function.py", "none.key", "--tenant", "acme"],
    ],
)
def test_keys_and_bundles_that_are_none_ask_nothing(
    asked: list[tuple[str, Any]], arguments: list[str]
) -> None:
    run("new", "valid-card")
    with pytest.raises(ConfigurationError):
        run(*arguments)
    assert asked == []


def _signer(*arguments: str) -> str:
    result = RUNNER.invoke(signer.app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_signers_are_added_and_removed(asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer, "call", running.call)
    Path("ci.pub").write_text(_signer("create", "ci", "--out", "ci.key"))
    _signer("add", "ci", "ci.pub", "--use", "deployer")
    _signer("remove", "ci")
    _signer("require")
    _signer("require", "--off")
    assert asked == [
        ("signer.add", {"signer": "ci", "use": "deployer", "jwk": json.loads(Path("ci.pub").read_text())}),
        ("signer.remove", {"signer": "ci"}),
        ("function.rules", {"signed_only": True}),
        ("function.rules", {"signed_only": False}),
    ]


def test_inputs_are_text_json_or_from_standard_input(asked: list[tuple[str, Any]]) -> None:
    run("invoke", "f@prod", "a=1", "b:=1", "c=-", "-c", "customer=c1", text="sealed\n")
    assert asked == [
        (
            "function.invoke",
            {
                "function": "f@prod",
                "inputs": {"a": "1", "b": 1, "c": "sealed"},
                "context": {"customer": "c1"},
            },
        )
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["invoke", "f@prod", "a"],
        ["invoke", "f@prod", "=1"],
        ["invoke", "f@prod", ":=1"],
        ["invoke", "f@prod", "a:=rubbish"],
        ["invoke", "f@prod", "-c", "customer"],
        ["build", "nowhere"],
        ["build", ".", "--set", "A"],
        ["build", ".", "--set", "A=1", "--set", "A=2"],
    ],
)
def test_arguments_that_cannot_be_used_ask_nothing(
    asked: list[tuple[str, Any]], arguments: list[str]
) -> None:
    with pytest.raises(ConfigurationError):
        run(*arguments)
    assert asked == []


def test_the_other_commands_ask_what_they_say(asked: list[tuple[str, Any]]) -> None:
    run("list")
    run("alias", "f", "prod", "0" * 64)
    run("start", "f@prod", "a=1")
    run("job", "j")
    run("jobs")
    run("cancel", "j")
    run("rollback", "f")
    run("debug", "f", "5")
    run("disable", "f")
    run("disable", "f", "--enable")
    assert asked == [
        ("function.list", {}),
        ("function.alias", {"function": "f", "alias": "prod", "digest": "0" * 64}),
        ("function.start", {"function": "f@prod", "inputs": {"a": "1"}, "context": {}}),
        ("job.get", {"job": "j"}),
        ("job.list", {"after": "", "limit": 100}),
        ("job.cancel", {"job": "j"}),
        ("function.rollback", {"function": "f", "alias": "prod"}),
        ("function.debug", {"function": "f", "minutes": 5}),
        ("function.disable", {"function": "f", "disabled": True}),
        ("function.disable", {"function": "f", "disabled": False}),
    ]


def test_logs_are_shown_opened_or_as_they_are(asked: list[tuple[str, Any]]) -> None:
    assert run("logs", "f") == "--- 1 p done c\nopened s\n"
    assert json.loads(run("logs", "f", "--sealed", "--after", "0", "--limit", "5"))["sealed"] == "s"
    assert asked[1] == ("function.logs", {"function": "f", "after": "0", "limit": 5})
