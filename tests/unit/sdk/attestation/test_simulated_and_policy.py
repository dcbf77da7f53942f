"""The core: simulated evidence, the two steps, and the policy file."""

from __future__ import annotations

import contextlib
import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cloister import attestation
from cloister.attestation import AppraisalPolicy, Format
from cloister.attestation.formats import simulated
from cloister.errors import AppraisalError, AttestationError, ConfigurationError, EvidenceError

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
NONCE = bytes(range(32))
STATEMENT = b'{"purpose":"cloister.attestation.v1"}'
DEPLOYMENT = "A" * 43
POLICY: dict[str, Any] = {
    "version": 1,
    "deployment": DEPLOYMENT,
    "environment": "simulated",
    "tee": {"simulated": {"reference": [{"name": "one", "measurement": "image-1"}]}},
}


def make(**changes: Any) -> bytes:
    good: dict[str, Any] = {
        "measurement": "image-1",
        "statement": STATEMENT,
        "nonce": NONCE,
        "issued_at": int(AT.timestamp()),
    }
    return simulated.sign(**(good | changes))


def authentic(raw: bytes | None = None, at: datetime = AT) -> attestation.AuthenticEvidence:
    return attestation.authenticate(raw or make(), format=Format.SIMULATED, at=at)


def appraise(
    raw: bytes | None = None, policy: dict[str, Any] | None = None, **changes: Any
) -> attestation.Appraisal:
    arguments: dict[str, Any] = {"statement": STATEMENT, "nonce": NONCE, "at": AT} | changes
    return attestation.appraise(authentic(raw), AppraisalPolicy.from_mapping(policy or POLICY), **arguments)


def changed(**members: Any) -> dict[str, Any]:
    return deepcopy(POLICY) | members


def with_tee(**members: Any) -> dict[str, Any]:
    policy = deepcopy(POLICY)
    policy["tee"]["simulated"] |= members
    return policy


def test_good_evidence_is_accepted_and_says_what_it_proves() -> None:
    evidence = authentic()
    assert evidence.environment == "simulated"
    assert "proves nothing" in evidence.not_checked[0]
    result = appraise()
    assert result.reference == "one"
    assert "statement and nonce" in result.checks
    assert any("max_age_seconds" in line for line in result.not_checked)


@pytest.mark.parametrize("position", range(0, len(make()), 3))
def test_a_flipped_byte_is_refused(position: int) -> None:
    raw = bytearray(make())
    raw[position] ^= 1
    with pytest.raises(EvidenceError):
        authentic(bytes(raw))


def test_a_signature_by_another_key_is_refused() -> None:
    raw = make()
    forged = Ed25519PrivateKey.generate().sign(b"cloister.simulated-evidence.v1\0" + raw[64:])
    with pytest.raises(EvidenceError, match="development root"):
        authentic(forged + raw[64:])


def test_a_signature_without_the_domain_is_refused() -> None:
    payload = make()[64:]
    key = Ed25519PrivateKey.from_private_bytes(simulated.DEVELOPMENT_SEED)
    with pytest.raises(EvidenceError, match="development root"):
        authentic(key.sign(payload) + payload)


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(AttestationError):
        attestation.authenticate(raw, format=Format.SIMULATED, at=AT)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_signed_nonsense_raises_only_our_errors(value: Any) -> None:
    key = Ed25519PrivateKey.from_private_bytes(simulated.DEVELOPMENT_SEED)
    members = json.loads(make()[64:])
    for name in members:
        payload = json.dumps(members | {name: value}).encode()
        raw = key.sign(b"cloister.simulated-evidence.v1\0" + payload) + payload
        with contextlib.suppress(AttestationError):
            authentic(raw)


def test_a_caller_supplied_anchor_is_refused_for_simulated_evidence() -> None:
    with pytest.raises(EvidenceError):
        attestation.authenticate(make(), format=Format.SIMULATED, at=AT, trust_anchors=[b"x"])


def test_expired_evidence_is_refused() -> None:
    with pytest.raises(EvidenceError, match="expired"):
        authentic(at=AT + timedelta(hours=4))


def test_evidence_from_the_future_is_refused() -> None:
    with pytest.raises(EvidenceError, match="not yet valid"):
        authentic(at=AT - timedelta(minutes=2))


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        attestation.authenticate(make(), format=Format.SIMULATED, at=AT.replace(tzinfo=None))


def test_another_nonce_is_refused() -> None:
    with pytest.raises(EvidenceError, match="nonce"):
        appraise(nonce=bytes(32))


def test_another_statement_is_refused() -> None:
    with pytest.raises(EvidenceError, match="statement"):
        appraise(statement=STATEMENT + b" ")


def test_another_measurement_is_refused_by_claim_and_remedy_without_its_value() -> None:
    with pytest.raises(AppraisalError, match="measurement") as refusal:
        appraise(make(measurement="image-evil"))
    assert refusal.value.hint
    assert "evil" not in str(refusal.value)


def test_a_second_reference_value_is_accepted_during_a_rolling_upgrade() -> None:
    references = [{"name": "one", "measurement": "image-1"}, {"name": "two", "measurement": "image-2"}]
    assert appraise(make(measurement="image-2"), with_tee(reference=references)).reference == "two"


def test_a_reference_value_past_its_time_is_refused() -> None:
    references = [{"name": "one", "measurement": "image-1", "not_after": "2026-10-01T00:00:00Z"}]
    with pytest.raises(AppraisalError, match="none is valid"):
        appraise(policy=with_tee(reference=references))


def test_a_claim_absent_from_the_evidence_equals_no_reference_value() -> None:
    references = [{"name": "one", "measurement": "image-1", "host_data": ""}]
    with pytest.raises(AppraisalError, match="host_data"):
        appraise(policy=with_tee(reference=references))


def test_debug_is_refused_unless_named() -> None:
    with pytest.raises(AppraisalError, match="debug"):
        appraise(make(debug=True))
    assert "debug: the policy allows it" in appraise(make(debug=True), with_tee(allow_debug=True)).not_checked


def test_age_is_limited_when_the_policy_says_so() -> None:
    old = make(issued_at=int(AT.timestamp()) - 301)
    assert "age" in appraise(old, with_tee(max_age_seconds=400)).checks
    with pytest.raises(EvidenceError, match="older"):
        appraise(old, with_tee(max_age_seconds=300))


def test_simulated_evidence_never_satisfies_a_hardware_policy() -> None:
    with pytest.raises(AppraisalError, match="environment"):
        appraise(policy=changed(environment="hardware"))


def test_a_format_the_policy_does_not_name_is_refused() -> None:
    with pytest.raises(AppraisalError, match="format"):
        appraise(policy=changed(tee={"nitro": {"reference": [{"name": "n", "pcr0": "00"}]}}))


def test_an_absent_minimum_is_refused() -> None:
    with pytest.raises(AppraisalError, match="svn"):
        appraise(policy=with_tee(minimum={"svn": 0}))


def test_an_absent_required_claim_is_refused() -> None:
    with pytest.raises(AppraisalError, match=r"a\.b"):
        appraise(policy=with_tee(require={"a": {"b": True}}))


def test_an_expired_policy_is_refused() -> None:
    with pytest.raises(AppraisalError, match="policy"):
        appraise(policy=changed(not_after="2026-10-01T00:00:00Z"))


def test_a_tcb_status_is_demanded_when_the_policy_lists_some() -> None:
    with pytest.raises(AppraisalError, match="tcb_status"):
        appraise(policy=with_tee(tcb_status=["UpToDate"]))


@pytest.mark.parametrize(
    "policy",
    [
        {},
        changed(version=2),
        changed(version=True),
        changed(environment="production"),
        changed(deployment="short"),
        changed(surprise=1),
        changed(tee={}),
        changed(tee={"sgx2": {}}),
        changed(trust_anchors=["pem"]),
        changed(tee={"simulated": {"reference": []}}),
        changed(tee={"simulated": {"reference": [{"name": "matches everything"}]}}),
        changed(tee={"simulated": {"reference": [{"measurement": "unnamed"}]}}),
        changed(not_after="soon"),
        with_tee(minimum={"svn": "8"}),
        with_tee(max_age_seconds=0),
        with_tee(allow_debug="yes"),
        with_tee(require={"x": 1.5}),
        with_tee(surprise=1),
    ],
)
def test_an_unusable_policy_is_refused_with_the_place(policy: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AppraisalPolicy.from_mapping(policy)


def test_toml_and_json_say_the_same() -> None:
    toml = f"""
        version = 1
        deployment = "{DEPLOYMENT}"
        environment = "simulated"
        [[tee.simulated.reference]]
        name = "one"
        measurement = "image-1"
    """
    expected = AppraisalPolicy.from_mapping(POLICY)
    assert AppraisalPolicy.from_toml(toml) == expected
    assert AppraisalPolicy.from_json(json.dumps(POLICY)) == expected


@given(st.text(max_size=200))
def test_random_policy_text_raises_only_our_errors(text: str) -> None:
    for read in (AppraisalPolicy.from_toml, AppraisalPolicy.from_json):
        with pytest.raises(ConfigurationError):
            read(text)


CONFIG = {"unseal": "tpm2", "debug": [], "sandbox": {"missing": []}}
HARDWARE = AppraisalPolicy.from_mapping(
    {"version": 1, "tee": {"nitro": {"reference": [{"name": "n", "pcr0": "aa"}], "minimum": {"svn": 3}}}}
)


def test_the_production_default_accepts_a_sound_configuration() -> None:
    HARDWARE.appraise_config(CONFIG)
    HARDWARE.appraise_config(CONFIG | {"debug": False})


@pytest.mark.parametrize(
    "change",
    [
        {"unseal": "file"},
        {"unseal": None},
        {"debug": ["log-payloads"]},
        {"debug": True},
        {"debug": None},
        {"sandbox": {"missing": ["landlock"]}},
        {"sandbox": {}},
    ],
)
def test_the_production_default_refuses_a_weak_configuration(change: dict[str, Any]) -> None:
    with pytest.raises(AppraisalError, match="config"):
        HARDWARE.appraise_config(CONFIG | change)


def test_a_configuration_value_can_be_accepted_by_name() -> None:
    policy = AppraisalPolicy.from_toml(
        'version = 1\n[config]\nsandbox.missing = ["landlock"]\n'
        '[[tee.nitro.reference]]\nname = "n"\npcr0 = "aa"\n'
    )
    policy.appraise_config(CONFIG | {"sandbox": {"missing": ["landlock"]}})
    with pytest.raises(AppraisalError):
        policy.appraise_config(CONFIG | {"sandbox": {"missing": ["landlock", "seccomp"]}})


HOLDER: dict[str, Any] = {"format": "nitro", "measurements": {"pcr0": "aa"}, "minimum": {"svn": 3}}


def test_a_holder_this_policy_would_accept_is_accepted() -> None:
    HARDWARE.appraise_holder(HOLDER)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "simulated"},
        {"format": "unknown"},
        {"format": None},
        {"measurements": {"pcr0": "bb"}},
        {"measurements": {}},
        {"measurements": None},
        {"minimum": {"svn": 2}},
        {"minimum": {}},
        {"minimum": None},
        {"minimum": {"svn": True}},
    ],
)
def test_a_holder_this_policy_would_not_accept_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AppraisalError):
        HARDWARE.appraise_holder(HOLDER | change)


def test_an_unknown_format_name_is_refused() -> None:
    with pytest.raises(EvidenceError, match="unknown format"):
        attestation.format_named("sgx2")
