"""encrypt, decrypt, mac, sign, verify, random and rewrap, as applications use them."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.envelope import Sealed, seal_to
from cloister.envelope.raw import Raw, encrypt_aad, verify_signature
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    EvidenceError,
    LimitError,
    OpenError,
)
from cloister.jose import b64url_decode, b64url_encode, unwrap_key
from cloister.protocol.public_key import verify_public_key
from cloister_host.identity.caller import Caller
from cloister_host.keymanager import usage as usage_module
from support.host_world import HostWorld
from unit.host.keymanager.test_administration import move
from unit.host.keymanager.test_keys import lease, open_one

RIGHTS = ("encrypt", "decrypt", "seal", "mac", "sign", "verify", "rewrap")
ALGS = ("EdDSA", "ES256", "ES384", "ML-DSA-65")


@pytest.fixture
def app(host: HostWorld) -> Caller:
    host.call(host.admin, "key.create", key="notes", purpose="seal")
    host.call(host.admin, "key.create", key="stamp", purpose="mac")
    for alg in ALGS:
        host.call(host.admin, "key.create", key=f"sign-{alg.lower()}", purpose="sign", alg=alg)
    return host.principal("app", *[(action, "key/*") for action in RIGHTS], ("random", "random/bytes"))


def enc(*data: bytes) -> list[str]:
    return [b64url_encode(item) for item in data]


def held(host: HostWorld, kid: str, *purposes: Any) -> Any:
    with host.store.begin() as tx:
        return host.services.keymanager._ring.version(tx, "acme", kid, *purposes)


# --- raw AEAD ---


def test_what_was_encrypted_decrypts_with_its_aad_and_in_order(host: HostWorld, app: Caller) -> None:
    data, aad = enc(b"one", b"", b"x" * 5000), enc(b"a", b"", b"b")
    made = host.call(app, "key.encrypt", key="notes", data=data, aad=aad)
    assert made.kid == "notes.1"
    assert all(text.startswith("cle1.notes.1.") for text in made.ciphertexts)
    assert host.call(app, "key.decrypt", ciphertexts=made.ciphertexts, aad=aad).data == data
    wrong = host.call(app, "key.decrypt", ciphertexts=made.ciphertexts, aad=enc(b"a", b"!", b"a"))
    assert (wrong.data, wrong.errors) == ([data[0], None, None], {"1": "open", "2": "open"})


def test_the_format_is_the_one_that_the_specification_gives(host: HostWorld, app: Caller) -> None:
    [text] = host.call(app, "key.encrypt", key="notes", data=enc(b"hello"), aad=enc(b"ctx")).ciphertexts
    prefix, name, version, body = text.split(".")
    assert (prefix, name, version) == ("cle1", "notes", "1")
    raw = b64url_decode(body)
    dek = unwrap_key(raw[:40], held(host, "notes.1").key).reveal()
    aad = b"cloister.encrypt.v1\0notes.1\0ctx"
    assert AESGCM(dek).decrypt(raw[40:52], raw[52:], aad) == b"hello"
    assert encrypt_aad("notes.1", b"ctx") == aad


def test_a_ciphertext_moved_to_another_key_or_version_does_not_open(host: HostWorld, app: Caller) -> None:
    [text] = host.call(app, "key.encrypt", key="notes", data=enc(b"hello")).ciphertexts
    host.call(host.admin, "key.rotate", key="notes")
    host.call(host.admin, "key.create", key="other", purpose="seal")
    body = text.rpartition(".")[2]
    for kid in ("notes.2", "notes.3", "other.1", "stamp.1", "nothing.1"):
        assert host.call(app, "key.decrypt", ciphertexts=[f"cle1.{kid}.{body}"]).errors == {"0": "open"}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_hostile_texts_are_errors_of_their_items_only(
    host: HostWorld, app_made: Any, data: st.DataObject
) -> None:
    app, good = app_made
    place = data.draw(st.integers(0, len(good) - 1))
    hostile = data.draw(
        st.one_of(
            st.text(max_size=60),
            st.just(good[:place] + data.draw(st.characters(codec="ascii")) + good[place + 1 :]),
            st.just(good[:place]),
        )
    )
    for op, payload in (
        ("key.decrypt", {"ciphertexts": [hostile, good]}),
        ("key.verify", {"proofs": [hostile], "data": [""]}),
        ("key.rewrap", {"key": "notes", "items": [{"value": hostile}]}),
    ):
        try:
            answer = host.call(app, op, **payload)
        except CloisterError:
            continue
        if op == "key.decrypt":
            assert answer.data[1] == b64url_encode(b"hello")


@pytest.fixture
def app_made(host: HostWorld, app: Caller) -> tuple[Caller, str]:
    return app, host.call(app, "key.encrypt", key="notes", data=enc(b"hello")).ciphertexts[0]


def test_encryption_counts_against_the_limit_of_the_version(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="few", purpose="seal", max_messages=3)
    host.call(app, "key.encrypt", key="few", data=enc(b"1", b"2", b"3"))
    with pytest.raises(LimitError):
        host.call(app, "key.encrypt", key="few", data=enc(b"4"))


# --- MACs and signatures ---


def test_a_mac_is_plain_hmac_and_verifies(host: HostWorld, app: Caller) -> None:
    made = host.call(app, "key.mac", key="stamp", data=enc(b"hello", b""))
    octets = held(host, "stamp.1", "mac").octets.reveal()
    assert b64url_decode(made.proofs[0].rpartition(".")[2]) == hmac.digest(octets, b"hello", "sha256")
    found = host.call(app, "key.verify", data=enc(b"hello", b"!"), proofs=made.proofs)
    assert (found.good, found.errors) == (1, {"1": "open"})


def test_each_key_that_verifies_has_an_entry_and_so_has_rubbish(host: HostWorld, app: Caller) -> None:
    mac = host.call(app, "key.mac", key="stamp", data=enc(b"a")).proofs[0]
    signed = host.call(app, "key.sign", key="sign-eddsa", data=enc(b"a")).proofs[0]
    host.call(app, "key.verify", data=enc(b"b", b"a", b"a"), proofs=[mac, signed, "rubbish"])
    found = {entry.resource: entry.detail for entry in host.audited("key.verify")}
    assert found == {
        "key/stamp": {"items": 1, "failed": 1},
        "key/sign-eddsa": {"items": 1, "failed": 0},
        "key/*": {"items": 1, "failed": 1},
    }


@pytest.mark.parametrize("alg", ALGS)
def test_a_signature_verifies_here_and_offline_with_the_vouched_for_half(
    host: HostWorld, app: Caller, alg: str
) -> None:
    key = f"sign-{alg.lower()}"
    made = host.call(app, "key.sign", key=key, data=enc(b"hello"))
    assert (made.kid, made.alg) == (f"{key}.1", alg)
    assert host.call(app, "key.verify", data=enc(b"hello"), proofs=made.proofs).good == 1
    assert host.call(app, "key.verify", data=enc(b"hallo"), proofs=made.proofs).errors == {"0": "open"}
    published = host.call(host.admin, "key.public", key=key)
    public = verify_public_key(
        published.statement, deployment=host.root.deployment, tenant="acme", now=host.clock.now
    )
    assert public.purpose == "sign"
    assert verify_signature(made.proofs[0], b"hello", public.jwk) == made.kid
    for signature, data, jwk in (
        (made.proofs[0], b"hallo", public.jwk),
        (made.proofs[0].replace(".1.", ".2."), b"hello", public.jwk),
        (made.proofs[0].replace("cls1", "clm1"), b"hello", public.jwk),
    ):
        with pytest.raises(EvidenceError):
            verify_signature(signature, data, jwk)


def test_a_key_does_only_what_it_is_for(host: HostWorld, app: Caller) -> None:
    for op, key in (
        ("key.encrypt", "stamp"),
        ("key.encrypt", "sign-eddsa"),
        ("key.mac", "notes"),
        ("key.mac", "sign-eddsa"),
        ("key.sign", "notes"),
        ("key.sign", "stamp"),
        ("key.data_key", "stamp"),
    ):
        more = {} if op == "key.data_key" else {"data": enc(b"x")}
        with pytest.raises(ConfigurationError, match="this key is for"):
            host.call(app, op, key=key, **more)


def test_a_mac_does_not_pass_as_a_signature_nor_the_other_way_round(host: HostWorld, app: Caller) -> None:
    [mac] = host.call(app, "key.mac", key="stamp", data=enc(b"x")).proofs
    [signature] = host.call(app, "key.sign", key="sign-eddsa", data=enc(b"x")).proofs
    swapped = [mac.replace("clm1", "cls1"), signature.replace("cls1", "clm1")]
    assert host.call(app, "key.verify", data=enc(b"x", b"x"), proofs=swapped).good == 0


def test_a_deactivated_version_verifies_and_signs_no_more(host: HostWorld, app: Caller) -> None:
    made = host.call(app, "key.sign", key="sign-es256", data=enc(b"x"))
    move(host, "sign-es256.1", "deactivated")
    with pytest.raises(ConfigurationError, match="present state"):
        host.call(app, "key.sign", key="sign-es256", data=enc(b"x"))
    assert host.call(app, "key.verify", data=enc(b"x"), proofs=made.proofs).good == 1
    move(host, "sign-es256.1", "compromised")
    assert host.call(app, "key.verify", data=enc(b"x"), proofs=made.proofs).good == 0


def test_signatures_and_macs_count_where_there_is_a_limit(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="few", purpose="sign", max_messages=2)
    host.call(app, "key.sign", key="few", data=enc(b"1", b"2"))
    with pytest.raises(LimitError):
        host.call(app, "key.sign", key="few", data=enc(b"3"))


def test_random_bytes_are_as_many_as_asked_and_never_the_same(host: HostWorld, app: Caller) -> None:
    drawn = {host.call(app, "key.random", size_bytes=32).data for _ in range(4)}
    assert len(drawn) == 4
    assert all(len(b64url_decode(data)) == 32 for data in drawn)
    with pytest.raises(ConfigurationError):
        host.call(app, "key.random", size_bytes=0)


# --- rights ---


@pytest.mark.parametrize(
    ("op", "payload", "right"),
    [
        ("key.encrypt", {"key": "notes", "data": ["eA"]}, "encrypt"),
        ("key.decrypt", {"ciphertexts": ["cle1.notes.1." + b64url_encode(bytes(70))]}, "decrypt"),
        ("key.mac", {"key": "stamp", "data": ["eA"]}, "mac"),
        ("key.sign", {"key": "sign-eddsa", "data": ["eA"]}, "sign"),
        ("key.verify", {"data": ["eA"], "proofs": ["clm1.stamp.1." + b64url_encode(bytes(32))]}, "verify"),
        ("key.rewrap", {"key": "notes", "items": [{"value": "x"}]}, "rewrap"),
        ("key.random", {"size_bytes": 1}, "random"),
    ],
)
def test_each_operation_has_a_right_of_its_own(
    host: HostWorld, app: Caller, op: str, payload: dict[str, Any], right: str
) -> None:
    grants = [(action, "key/*") for action in {*RIGHTS, "key.manage", "key.read"} - {right}]
    who = host.principal("nearly", *grants)
    with pytest.raises(DeniedError):
        host.call(who, op, **payload)
    noun = "random/bytes" if right == "random" else "key/*"
    host.grant("nearly", right, noun)
    host.call(who, op, **payload)


def test_a_faas_principal_decrypts_nothing_whatever_it_was_granted(host: HostWorld, app: Caller) -> None:
    faas = host.principal("lambda", ("encrypt", "key/*"), ("rewrap", "key/*"), kind="faas")
    made = host.call(faas, "key.encrypt", key="notes", data=enc(b"x"))
    with pytest.raises(ConfigurationError, match="never granted"):
        host.grant("lambda", "decrypt", "key/*")
    with pytest.raises(DeniedError):
        host.call(faas, "key.decrypt", ciphertexts=made.ciphertexts)


def test_no_plaintext_key_or_mac_is_in_the_audit_log(host: HostWorld, app: Caller) -> None:
    made = host.call(app, "key.encrypt", key="notes", data=enc(b"4071-secret"))
    host.call(app, "key.decrypt", ciphertexts=made.ciphertexts)
    mac = host.call(app, "key.mac", key="stamp", data=enc(b"4071-secret")).proofs[0]
    log = repr(host.audited())
    assert "4071" not in log
    assert enc(b"4071-secret")[0] not in log
    assert mac.rpartition(".")[2] not in log


# --- rewrap ---


def test_values_move_to_the_current_version_with_and_without_their_contexts(
    host: HostWorld, app: Caller
) -> None:
    old = lease(host, app, "notes")
    values: list[Any] = ["plain", {"a": [1.0, None]}, b"\0\xff"]
    sealed = [old.seal(values[0]), old.seal(values[1], {"row": "1"}), old.seal(values[2], {"row": "2"})]
    [raw] = host.call(app, "key.encrypt", key="notes", data=enc(b"raw"), aad=enc(b"a")).ciphertexts
    host.call(host.admin, "key.rotate", key="notes")
    items = [
        {"value": sealed[0]},
        {"value": sealed[1], "context": {"row": "1"}},
        {"value": sealed[2]},
        {"value": raw, "aad": b64url_encode(b"a")},
    ]
    moved = host.call(app, "key.rewrap", key="notes", items=items)
    assert (moved.kid, moved.moved, moved.kept, moved.errors) == ("notes.2", 4, 1, {})
    host.call(host.admin, "key.destroy", kid="notes.1")
    host.clock.now += 8 * 86_400
    assert [Sealed(value).kid for value in moved.values[:3]] == ["notes.2"] * 3
    assert open_one(host, app, moved.values[0]).value == "plain"
    assert open_one(host, app, moved.values[1], context={"row": "1"}).value == {"a": [1.0, None]}
    assert open_one(host, app, moved.values[2], context={"row": "2"}).value == b64url_encode(b"\0\xff")
    assert open_one(host, app, moved.values[2], context={"row": "1"}).error == "open"
    assert host.call(app, "key.decrypt", ciphertexts=[moved.values[3]], aad=enc(b"a")).data == enc(b"raw")
    used = {u.kid: u for u in host.call(host.admin, "key.show", key="notes").usage}
    assert used["notes.1"].values_rewrapped == 4


def test_a_value_of_the_current_version_stays_as_it_is(host: HostWorld, app: Caller) -> None:
    sealed = lease(host, app, "notes").seal("x")
    moved = host.call(app, "key.rewrap", key="notes", items=[{"value": sealed}])
    assert (moved.values, moved.moved) == ([sealed], 0)


def test_out_of_a_compromised_version_only_with_a_fresh_data_key(host: HostWorld, app: Caller) -> None:
    old = lease(host, app, "notes")
    bound, free = old.seal("x", {"row": "1"}), old.seal("y")
    host.call(host.admin, "key.rotate", key="notes")
    move(host, "notes.1", "compromised")
    assert open_one(host, app, free).error == "open"
    items = [{"value": bound}, {"value": free}, {"value": bound, "context": {"row": "1"}}]
    moved = host.call(app, "key.rewrap", key="notes", items=items)
    assert (moved.errors, moved.kept) == ({"0": "open"}, 0)
    for value in moved.values[1:]:
        assert Sealed(value).encrypted_key != Sealed(free).encrypted_key
    assert open_one(host, app, moved.values[2], context={"row": "1"}).value == "x"


def test_a_wrong_context_another_key_or_rubbish_is_an_error_of_its_item(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="other", purpose="seal")
    sealed, other = lease(host, app, "notes").seal("x", {"row": "1"}), lease(host, app, "other").seal("x")
    host.call(host.admin, "key.rotate", key="notes")
    items = [
        {"value": sealed, "context": {"row": "2"}},
        {"value": other},
        {"value": "rubbish"},
        {"value": sealed},
    ]
    moved = host.call(app, "key.rewrap", key="notes", items=items)
    assert moved.errors == {"0": "open", "1": "open", "2": "open"}
    assert moved.values[3] is not None


def test_a_data_key_that_is_kept_again_and_again_stops_short_of_the_gcm_bound(
    host: HostWorld, app: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = lease(host, app, "notes").seal("x", {"row": "1"})
    host.call(host.admin, "key.rotate", key="notes")
    monkeypatch.setattr(usage_module, "GCM_MESSAGES", 2**24 + 5)
    for _ in range(2):
        host.call(app, "key.rewrap", key="notes", items=[{"value": sealed}] * 2)
    with pytest.raises(LimitError, match="contexts"):
        host.call(app, "key.rewrap", key="notes", items=[{"value": sealed}] * 2)
    host.call(app, "key.rewrap", key="notes", items=[{"value": sealed, "context": {"row": "1"}}] * 2)


def test_documents_sealed_offline_move_with_their_contexts(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="docs", purpose="seal-public")
    jwk = host.call(host.admin, "key.public", key="docs").jwk
    sealed = [seal_to("x", jwk, kid="docs.1"), seal_to("y", jwk, kid="docs.1", context={"row": "1"})]
    host.call(host.admin, "key.rotate", key="docs")
    items = [{"value": sealed[0]}, {"value": sealed[1], "context": {"row": "1"}}, {"value": sealed[1]}]
    moved = host.call(app, "key.rewrap", key="docs", items=items)
    assert moved.errors == {"2": "open"}
    assert open_one(host, app, moved.values[0]).value == "x"
    assert open_one(host, app, moved.values[1], context={"row": "1"}).value == "y"


def test_a_rewrap_that_crashes_at_any_step_has_counted_nothing(
    host: HostWorld, app: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.faults import crash_at_every_step

    old = lease(host, app, "notes")
    items = [{"value": old.seal("x")}, {"value": old.seal("y", {"row": "1"})}]
    host.call(host.admin, "key.rotate", key="notes")
    died = crash_at_every_step(
        monkeypatch,
        host,
        lambda: host.call(app, "key.rewrap", key="notes", items=items),
        "key_usage",
        "dek_usage",
        "audit",
    )
    assert died >= 5


def test_raw_texts_are_parsed_strictly() -> None:
    good = str(Raw(kind="clm1", kid="a.1", body=bytes(32)))
    assert Raw.parse(good, "clm1", "cls1").kid == "a.1"
    for bad in (
        good + "A",
        good.replace("clm1", "clm2"),
        good.replace("a.1", "a.01"),
        good.replace("a.1", "A.1"),
        good.replace("a.1", "a"),
        good + ".x",
        good.replace("AAAA", "AAA=", 1),
        "",
        "clm1.a.1.",
    ):
        with pytest.raises(OpenError):
            Raw.parse(bad, "clm1")
