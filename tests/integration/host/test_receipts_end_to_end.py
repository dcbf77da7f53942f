"""Receipts of a real host: for every answer and every refusal, verified offline, and giving nothing away."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time

import anyio
import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloister import AsyncClient, jose
from cloister._cli.root import build
from cloister.client import policy_from
from cloister.errors import (
    AppraisalError,
    CloisterError,
    ConfigurationError,
    DeniedError,
    EvidenceError,
    LogError,
    OpenError,
    UnavailableError,
)
from cloister.identity import ApiKey
from cloister.receipts import Receipt
from cloister.receipts.bundle import bundle, load_bundle, verify_bundle
from cloister.transport.httpx import HttpxTransport
from cloister_host.testing import embedded_host

PIN = "4711"
PINS = ["".join(digits) for digits in itertools.product("0123456789", repeat=4)]
CHECK = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("check-pin", output=boolean())
def check_pin(pin: Annotated[str, sealed("pins")]) -> bool:
    return pin == "4711"
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def tenant(host):
    tenant = host.tenant()
    tenant.admin.call("key.create", {"key": "pins", "purpose": "seal"})
    tenant.admin.call(
        "policy.create", {"policy": "pin", "plan": "vault", "alphabet": "0123456789", "length": 12}
    )
    yield tenant
    tenant.admin.close()


@pytest.fixture(scope="module")
def client(tenant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("function")
    (folder / "function.py").write_text(CHECK)
    tenant.deploy(folder)
    grants = [
        ("seal", "key/pins"),
        ("decrypt", "key/pins"),
        ("tokenize", "policy/pin"),
        ("detokenize", "policy/pin"),
        ("invoke", "function/check-pin"),
    ]
    with tenant.client("app", grants) as client:
        yield client


@pytest.fixture(scope="module")
def policy(host):
    return policy_from(host.policy)


def proven(client, receipt, **more):
    """The bundle of a receipt, once its leaf has a place."""
    claims = receipt.unverified_claims
    evidence = client.call("receipt.evidence", {"keyset": claims["keyset"], "at": claims["iat"]})["evidence"]
    for _ in range(200):
        try:
            log = client.call("receipt.proof", {"receipt": receipt.id})
        except UnavailableError:
            time.sleep(0.05)
        else:
            return bundle(receipt, evidence=evidence, log=log, **more)
    raise AssertionError("the leaf was never placed")


@pytest.fixture(scope="module")
def good(client):
    """A good bundle, of an invocation."""
    return proven(client, client.invoke("check-pin@prod", pin=client.seal(PIN, key="pins")).receipt)


def test_an_invocation_is_proven_offline(client, policy, good):
    found = verify_bundle(json.loads(json.dumps(good)), policy)
    assert found.claims["act"] == "function.invoke"
    assert (found.claims["function"], found.claims["output"]) == ("check-pin", "boolean")
    assert found.claims["eat_profile"] == "urn:cloister:receipt:1"
    assert len(jose.b64url_decode(found.claims["eat_nonce"])) == 32
    assert found.disclosed["principal"] == "app"
    assert (found.environment, found.head.deployment) == ("simulated", policy.deployment)
    assert "leaf in the log" in found.checks


@pytest.mark.parametrize("answer", ["true", "false"])
def test_the_answer_of_a_function_is_guessed_only_with_the_salt(client, answer):
    pin = PIN if answer == "true" else "0000"
    receipt = client.invoke("check-pin@prod", pin=client.seal(pin, key="pins")).receipt
    assert guesses(receipt, "result_digest", [digest(rfc8785.dumps(guess)) for guess in (True, False)]) == [
        digest(answer.encode())
    ]


def test_a_tokenized_pin_is_guessed_from_no_receipt(client):
    tokens = client.tokenize("pin", [PIN])
    [receipt] = tokens.receipts
    assert receipt.unverified_claims["act"] == "token.tokenize"
    [back] = client.detokenize("pin", tokens).receipts
    # The value behind the tokens, hashed in any way the receipt could have it in.
    without_salt = {digest(pin.encode()) for pin in PINS} | {digest(rfc8785.dumps(pin)) for pin in PINS}
    for found in (receipt, back):
        assert not without_salt & set(json.dumps(dict(found.unverified_claims)).split('"'))
    # Whoever was given the salts finds the PIN among all of them, in the receipt for detokenizing it.
    results = [{"values": [pin], "errors": {}, "show": "plain", "references": None} for pin in PINS]
    wanted = back.unverified_disclosures["result_digest"]
    assert [r["values"] for r in results if digest(rfc8785.dumps(r)) == wanted] == [[PIN]]
    assert guesses(back, "result_digest", [wanted]) == [wanted]


def guesses(receipt, name, candidates):
    """Which candidates for a disclosure are found to be right: none without the salt."""
    committed = set(receipt.unverified_claims["_sd"])

    def matches(salt):
        return [
            value
            for value in candidates
            if digest(jose.b64url_encode(rfc8785.dumps([salt, name, value])).encode()) in committed
        ]

    assert matches("") == []
    [salt] = [
        salt
        for salt, disclosed, _ in (json.loads(jose.b64url_decode(text)) for text in receipt.disclosures)
        if disclosed == name
    ]
    return matches(salt)


def digest(data):
    return jose.b64url_encode(hashlib.sha256(data).digest())


def test_an_opened_value_has_a_receipt(client, policy):
    opened = client.open_many([client.seal(PIN, key="pins")])
    [receipt] = opened.receipts
    found = verify_bundle(proven(client, receipt), policy)
    assert (found.claims["act"], found.claims["resource"]) == ("value.open", "key/pins")
    assert PIN not in json.dumps([dict(found.claims), dict(found.disclosed)])


REFUSALS = {
    "no grant": (DeniedError, "key.create", {"key": "k", "purpose": "seal"}),
    "columns of two lengths": (
        ConfigurationError,
        "token.tokenize",
        {"policy": "pin", "values": ["1"], "references": ["a", "b"]},
    ),
    "no grant for a function": (DeniedError, "function.invoke", {"function": "none@prod", "inputs": {}}),
    "an input that does not open": (
        OpenError,
        "function.invoke",
        {"function": "check-pin@prod", "inputs": {"pin": "no value"}},
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_has_a_receipt_too(client, policy, case):
    error, op, payload = case
    with pytest.raises(error) as caught:
        client.call(op, payload)
    found = verify_bundle(proven(client, Receipt.from_json(caught.value.receipt)), policy)
    assert found.claims["outcome"] == "refused"
    assert found.disclosed["error"] == caught.value.code
    assert "error" not in found.claims


def test_the_same_refusal_repeated_gives_the_same_answer_for_each_request(client):
    receipts = []
    for _ in range(2):
        with pytest.raises(DeniedError) as caught:
            client.call("key.create", {"key": "k", "purpose": "seal"}, idempotency_key="once")
        receipts.append(caught.value.receipt["id"])
    assert len(set(receipts)) == 2


def test_a_repeated_effect_gives_the_receipt_of_the_first(client):
    results = [
        client.call("token.tokenize", {"policy": "pin", "values": ["1234"]}, idempotency_key="again")
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert results[0]["receipt"]["id"]


def test_the_asynchronous_client_has_the_receipts_too(host, tenant, client):
    async def run():
        key = tenant.key_file("app").read_text().strip()
        async with AsyncClient(
            tenant=tenant.name,
            policy=policy_from(host.policy),
            identity=ApiKey(key),
            transport=HttpxTransport(host.url),
        ) as asynchronous:
            assert asynchronous.tree_head is None
            [receipt] = (await asynchronous.tokenize("pin", [PIN])).receipts
            assert asynchronous.tree_head is not None
            return receipt

    assert anyio.run(run).unverified_claims["act"] == "token.tokenize"


def test_a_proof_is_given_to_whose_receipt_it_is_and_to_auditors(client, tenant):
    [receipt] = client.tokenize("pin", ["77"]).receipts
    proven(client, receipt)
    proven(tenant.admin, receipt)
    with tenant.client("somebody") as somebody:
        for receipt_id in (receipt.id, "00"):
            with pytest.raises(DeniedError):
                somebody.call("receipt.proof", {"receipt": receipt_id})
    with pytest.raises(ConfigurationError):
        tenant.admin.call("receipt.proof", {"receipt": "00"})
    with pytest.raises(ConfigurationError):
        client.call("receipt.evidence", {"keyset": "A" * 43, "at": 2_000_000_000})
    claims = receipt.unverified_claims
    with pytest.raises(ConfigurationError):
        client.call("receipt.evidence", {"keyset": claims["keyset"], "at": claims["iat"] - 10**6})


def test_evidence_outlives_its_keyset(client, host, policy, good):
    [receipt] = client.tokenize("pin", ["78"]).receipts
    host.host.keysets.rotate()
    client.tokenize("pin", ["79"])
    assert (
        verify_bundle(proven(client, receipt), policy).claims["keyset"] == receipt.unverified_claims["keyset"]
    )


# --- a bundle with one thing wrong ---


def test_another_deployments_policy_refuses(good, policy, host):
    text = host.policy.read_text().replace(policy.deployment, "A" * 43)
    from cloister.attestation import AppraisalPolicy

    with pytest.raises(EvidenceError, match="another deployment"):
        verify_bundle(good, AppraisalPolicy.from_toml(text))


def test_a_policy_with_another_measurement_refuses(good, host):
    from cloister.attestation import AppraisalPolicy

    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, host.policy.read_text())
    with pytest.raises(AppraisalError):
        verify_bundle(good, AppraisalPolicy.from_toml(text))


def test_without_a_policy_and_without_a_proof_the_answer_says_so(good):
    found = verify_bundle({**good, "log": None}, None)
    assert found.environment is None
    assert any("no policy" in line for line in found.not_checked)
    assert any("no proof" in line for line in found.not_checked)


def other_receipt(client):
    return proven(client, client.invoke("check-pin@prod", pin=client.seal("0000", key="pins")).receipt)


def test_parts_of_two_bundles_do_not_fit_together(client, policy, good):
    other = other_receipt(client)
    with pytest.raises(LogError):
        verify_bundle({**good, "log": {**good["log"], "index": other["log"]["index"]}}, policy)
    with pytest.raises(LogError):
        verify_bundle({**good, "log": {**other["log"]}}, policy)
    with pytest.raises(EvidenceError):
        verify_bundle({**good, "disclosures": other["disclosures"]}, policy)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"v": 2},
        {"receipt": None},
        {"receipt": "a.b.c"},
        {"disclosures": None},
        {"disclosures": [7]},
        {"disclosures": ["AA"]},
        {"evidence": None},
        {"evidence": {}},
        {"log": []},
        {"log": {}},
        {"log": {"index": "0", "path": "", "head": "x"}},
    ],
    ids=str,
)
def test_a_bundle_with_one_member_malformed_is_refused(policy, good, change):
    with pytest.raises((EvidenceError, LogError)):
        verify_bundle({**good, **change}, policy)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_mutated_bundle_is_refused_with_our_error(policy, good, data):
    raw = json.dumps({**good, "evidence": None} if data.draw(st.booleans()) else good).encode()
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))
    try:
        found = verify_bundle(load_bundle(raw[:at] + bytes([byte]) + raw[at + 1 :]), policy)
    except CloisterError:
        return
    assert found.claims == verify_bundle(good, policy).claims


@given(st.binary(max_size=300))
def test_random_bytes_are_no_bundle(raw):
    with pytest.raises(EvidenceError):
        verify_bundle(load_bundle(raw), None)
    with pytest.raises(EvidenceError):
        load_bundle(b" " * (4 * 1024 * 1024 + 1))


# --- the commands ---


def test_a_receipt_is_shown_exported_and_verified_offline(client, tenant, host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reply = client.invoke("check-pin@prod", pin=client.seal(PIN, key="pins"))
    proven(client, reply.receipt)
    (tmp_path / "reply.json").write_text(json.dumps({"value": True, "receipt": reply.receipt.to_json()}))
    (tmp_path / "receipt.json").write_text(json.dumps(reply.receipt.to_json()))

    def run(*arguments, status=0):
        done = CliRunner().invoke(build({}, {}), ["receipt", *arguments], env=tenant.environment("app"))
        assert done.exit_code == status, f"{done.output} {done.exception!r}"
        return done.stdout

    for file in ("reply.json", "receipt.json"):
        assert json.loads(run("show", file))["claims"]["function"] == "check-pin"
    run("export", "receipt.json", "--out", "bundle.json")
    run("export", "receipt.json", "--out", "bundle.json", status=1)
    run("export", "reply.json", "--out", "full.json", "--disclose-all")
    run("export", "reply.json", "--out", "some.json", "--disclose", "principal")
    run("export", "reply.json", "--out", "none.json", "--disclose", "nothing", status=1)
    policy = ("--policy", str(host.policy))
    assert json.loads(run("verify", "bundle.json", *policy, "--json"))["disclosed"] == {}
    assert json.loads(run("verify", "some.json", *policy, "--json"))["disclosed"] == {"principal": "app"}
    assert "disclosed    principal" in run("verify", "full.json", *policy)
    assert json.loads(run("show", "bundle.json"))["id"] == reply.receipt.id
    changed = (tmp_path / "full.json").read_text().replace('"index": ', '"index": 1')
    (tmp_path / "changed.json").write_text(changed)
    assert run("verify", "changed.json", *policy, status=3).startswith("refused")
    assert json.loads(run("verify", "changed.json", *policy, "--json", status=3))["verdict"] == "refused"
    run("show", "missing.json", status=1)
