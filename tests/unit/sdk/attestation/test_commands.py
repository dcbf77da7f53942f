"""`cloister evidence verify` and `cloister policy lint`: verdicts, exit codes, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from cloister._cli import evidence, policy
from cloister.attestation import AppraisalPolicy, Format
from cloister.attestation.lint import lint
from cloister.errors import ConfigurationError
from support.evidence_vectors import BY_NAME, DOCUMENTS, FOLDER, TODAY, Document

ACCEPTED, UNUSABLE, REFUSED = 0, 2, 3
SCHEMA = json.loads(
    (Path(evidence.__file__).parents[1] / "attestation" / "policy.schema.json").read_text("utf-8")
)
NITRO = BY_NAME["nitro/g_2022-11-09_prod.cose"]


def verify(document: Document, *options: str, at: str = "") -> tuple[int, dict[str, Any]]:
    arguments = ["verify", str(FOLDER / document.name), "--format", document.format, "--json"]
    arguments += ["--at", at or document.at.isoformat()]
    for name in document.endorsements:
        arguments += ["--endorsements", str(FOLDER / name)]
    for name in document.trust_anchors:
        arguments += ["--trust-anchor", str(FOLDER / name)]
    if document.collateral:
        arguments += ["--collateral", str(FOLDER / document.collateral)]
    if document.jwks:
        arguments += ["--jwks", str(FOLDER / document.jwks)]
    result = CliRunner().invoke(evidence.app, [*arguments, *options])
    return result.exit_code, json.loads(result.stdout)


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content), "utf-8")
    return str(path)


def policy_for(document: Document, **tee: Any) -> dict[str, Any]:
    reference = {"name": "release", "pcr0": document.claims["pcr0"]}
    return {"version": 1, "tee": {"nitro": {"reference": [reference]} | tee}}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_document_gets_its_verdict(document: Document) -> None:
    code, result = verify(document)
    assert code == (REFUSED if document.debug else ACCEPTED)
    assert result["verdict"] == ("refused" if document.debug else "accepted")
    assert result["claims"]
    assert result["not_checked"]
    code, _ = verify(document, "--allow-debug")
    assert code == ACCEPTED
    code, result = verify(document, "--allow-debug", at=TODAY.isoformat())
    assert code == (ACCEPTED if document.alive else REFUSED)


def test_an_answered_nonce_is_accepted_and_another_refused() -> None:
    nonce = "c678c86135de539d183acff58886d98dfb9823041af9f934bf909ac0f8d96245"
    assert verify(NITRO, "--nonce", nonce)[0] == ACCEPTED
    code, result = verify(NITRO, "--nonce", "00" + nonce[2:])
    assert code == REFUSED
    assert "nonce" in result["reason"]


def test_times_are_read_in_every_form_of_rfc_3339() -> None:
    for at in ("2022-11-09t22:52:01z", "2022-11-09 22:52:01.5Z", "2022-11-10T00:52:01.123456789+02:00"):
        assert verify(NITRO, "--at", at)[0] == ACCEPTED


def test_a_policy_is_applied(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", policy_for(NITRO))
    code, result = verify(NITRO, "--policy", good)
    assert code == ACCEPTED
    assert "release" in result["reason"]
    assert any("deployment" in line for line in result["not_checked"])
    other = policy_for(BY_NAME["nitro/g_2021-03-17_prod.cose"])
    code, result = verify(NITRO, "--policy", write(tmp_path / "other.json", other))
    assert code == REFUSED
    assert result["reason"].startswith("pcr0")


@pytest.mark.parametrize(
    "options",
    [
        ["--at", "yesterday"],
        ["--at", "2026-11-01T12:00:00"],
        ["--nonce", "xyz"],
        ["--policy", "missing.toml"],
        ["--endorsements", "missing.der"],
        ["--format", "unknown"],
        ["--trust-anchor", str(FOLDER / NITRO.name)],
        ["--jwks", str(FOLDER / "MANIFEST.json")],
        ["--jwks", str(FOLDER / NITRO.name)],
    ],
    ids=str,
)
def test_unusable_input_is_told_apart_from_a_refusal(options: list[str]) -> None:
    arguments = ["verify", str(FOLDER / NITRO.name), "--format", "nitro", *options]
    assert CliRunner().invoke(evidence.app, arguments).exit_code == UNUSABLE


def test_a_missing_file_is_unusable() -> None:
    arguments = ["verify", "missing.cose", "--format", "nitro", "--json"]
    result = CliRunner().invoke(evidence.app, arguments)
    assert result.exit_code == UNUSABLE
    assert json.loads(result.stdout)["verdict"] == "unusable"


def test_a_file_that_is_too_large_is_unusable(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(evidence.MAX_FILE_BYTES + 1))
    arguments = ["verify", str(large), "--format", "nitro"]
    assert CliRunner().invoke(evidence.app, arguments).exit_code == UNUSABLE


def test_a_person_is_told_what_was_not_checked() -> None:
    arguments = ["verify", str(FOLDER / NITRO.name), "--format", "nitro", "--at", NITRO.at.isoformat()]
    output = CliRunner().invoke(evidence.app, arguments).output
    assert "NOT checked  nonce" in output
    assert "no policy was given" in output


SOUND: dict[str, Any] = {
    "version": 1,
    "deployment": "A" * 43,
    "not_after": "2027-06-01T00:00:00Z",
    "tee": {"nitro": {"reference": [{"name": "release", "pcr0": "ab" * 48}]}},
}


def run_lint(path: Path, content: dict[str, Any], *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(policy.app, ["lint", write(path / "policy.json", content), *options])
    return result.exit_code, result.output


def test_a_sound_policy_has_no_findings(tmp_path: Path) -> None:
    assert run_lint(tmp_path, SOUND, "--strict") == (0, "nothing found\n")


def _with_tee(name: str, **members: Any) -> dict[str, Any]:
    return SOUND | {"tee": {name: members}}


ZERO = [{"name": "debug", "pcr0": "00" * 48}]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({key: value for key, value in SOUND.items() if key != "deployment"}, "deployment"),
        (SOUND | {"environment": "simulated"}, "environment"),
        (_with_tee("nitro", reference=SOUND["tee"]["nitro"]["reference"], allow_debug=True), "allow_debug"),
        (_with_tee("nitro", reference=ZERO), "all zeros"),
        (_with_tee("nitro", reference=[{"name": "r", "pcr3": "ab" * 48}]), "what code runs"),
        (_with_tee("nitro", reference=[{"name": "r", "pcr0": "AB" * 48}]), "upper case"),
        (_with_tee("nitro", reference=[{"name": "r", "pcr0": []}]), "empty list"),
        (
            _with_tee(
                "tdx",
                reference=[{"name": "r", "mr_td": "a", "rtmr0": "a", "rtmr1": "a", "rtmr2": "a"}],
                tcb_status=["UpToDate", "OutOfDate"],
            ),
            "tcb_status",
        ),
        (SOUND | {"config": {"unseal": ["file"]}}, "config.unseal"),
        (SOUND | {"config": {"unseal": ["aws_kms"]}}, "no unseal provider"),
        (SOUND | {"config": {"debug": ["log-payloads"]}}, "config.debug"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_policy_that_accepts_too_much_is_found(tmp_path: Path, content: dict[str, Any], where: str) -> None:
    code, output = run_lint(tmp_path, content)
    assert code == REFUSED
    assert where in output


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (_with_tee("sev-snp", reference=[{"name": "r", "measurement": "ab"}]), "reported_tcb.snp"),
        (
            _with_tee(
                "gcp-confidential-space",
                reference=[{"name": "r", "submods.container.image_digest": "sha256:ab"}],
            ),
            "hwmodel",
        ),
        ({key: value for key, value in SOUND.items() if key != "not_after"}, "not_after"),
        (SOUND | {"config": {"sandbox.missing": ["landlock"]}}, "sandbox.missing"),
        (SOUND | {"config": {"unseal": ["azure-keyvault"]}}, "attested or not"),
    ],
    ids=["old firmware", "any hardware", "no expiry", "weaker sandbox", "unattested unseal"],
)
def test_a_warning_fails_only_when_strict(tmp_path: Path, content: dict[str, Any], where: str) -> None:
    code, output = run_lint(tmp_path, content)
    assert code == ACCEPTED
    assert where in output
    assert run_lint(tmp_path, content, "--strict", "--json")[0] == REFUSED


def test_something_else_is_no_policy(tmp_path: Path) -> None:
    assert run_lint(tmp_path, {"version": 2})[0] == UNUSABLE
    assert CliRunner().invoke(policy.app, ["lint", str(tmp_path / "none.toml")]).exit_code == UNUSABLE


def test_every_format_can_be_linted() -> None:
    for format_ in Format:
        tee = {format_.value: {"reference": [{"name": "r", "nothing": "x"}]}}
        found = lint(AppraisalPolicy.from_mapping(SOUND | {"tee": tee}))
        assert any("what code runs" in finding.problem for finding in found)


def test_the_schema_is_a_schema_and_knows_every_format() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]["tee"]["propertyNames"]["enum"]) == set(Format)


@pytest.mark.parametrize(
    "content",
    [
        SOUND,
        SOUND | {"config": {"sandbox": {"missing": ["landlock"]}}},
        _with_tee(
            "tdx",
            reference=[{"name": "r", "mr_td": ["a", "b"], "not_after": "2027-01-01T00:00:00Z"}],
            minimum={"tdx_module_svn": 3},
            require={"sept_ve_disable": True},
            tcb_status=["UpToDate"],
            advisories=["INTEL-SA-00615"],
            allow_debug=False,
            max_age_seconds=300,
        ),
    ],
)
def test_schema_and_parser_agree_on_good_policies(content: dict[str, Any]) -> None:
    Draft202012Validator(SCHEMA).validate(content)
    AppraisalPolicy.from_mapping(content)


@pytest.mark.parametrize(
    "content",
    [
        {},
        SOUND | {"version": 2},
        SOUND | {"surprise": 1},
        SOUND | {"tee": {}},
        SOUND | {"tee": {"sgx2": {"reference": [{"name": "r", "x": 1}]}}},
        SOUND | {"deployment": "short"},
        SOUND | {"environment": "production"},
        _with_tee("nitro", reference=[]),
        _with_tee("nitro", reference=[{"name": "matches everything"}]),
        _with_tee("nitro", reference=[{"pcr0": "unnamed"}]),
        _with_tee("nitro", reference=[{"name": "r", "pcr0": 1.5}]),
        _with_tee("nitro", reference=[{"name": "r", "pcr0": "a"}], minimum={"svn": "3"}),
        _with_tee("nitro", reference=[{"name": "r", "pcr0": "a"}], max_age_seconds=0),
    ],
)
def test_schema_and_parser_agree_on_bad_policies(content: dict[str, Any]) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(content)
    with pytest.raises(ConfigurationError):
        AppraisalPolicy.from_mapping(content)
