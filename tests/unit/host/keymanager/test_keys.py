"""Keys and values as principals of a tenant get them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloister import jose
from cloister.envelope import DataKey, Dek, Sealed, open_with_cek, seal_to
from cloister.errors import ConfigurationError, DeniedError, EvidenceError, OpenError
from cloister.protocol.public_key import verify_public_key
from cloister.secret import Secret
from cloister_host.identity.caller import Caller
from cloister_host.store import ExistsError, TamperedError
from support.host_world import HostWorld, caller


@pytest.fixture
def app(host: HostWorld) -> Caller:
    """A service with every right on the key `ssn`, and no other."""
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    rights = ("seal", "wrap", "unwrap", "decrypt", "key.read")
    return host.principal("app", *[(action, "key/ssn") for action in rights])


def lease(host: HostWorld, who: Caller, key: str = "ssn") -> Dek:
    issued = host.call(who, "key.data_key", key=key)
    data_key = DataKey(
        kid=issued.kid,
        dek=Secret(jose.b64url_decode(issued.dek)),
        encrypted_key=jose.b64url_decode(issued.encrypted_key),
        max_messages=issued.max_messages,
        max_bytes=issued.max_bytes,
        max_age_seconds=issued.max_age_seconds,
    )
    return Dek(data_key, now=0)


def open_one(host: HostWorld, who: Caller, sealed: str, **more: Any) -> Any:
    return host.call(who, "value.open", values=[{"sealed": sealed, **more}]).values[0]


# --- life of a key ---


def test_a_key_is_created_with_its_first_version(host: HostWorld) -> None:
    created = host.call(host.admin, "key.create", key="ssn", purpose="seal")
    assert (created.key, created.kid, created.purpose) == ("ssn", "ssn.1", "seal")


def test_a_key_name_that_is_taken_is_refused(host: HostWorld, app: Caller) -> None:
    before = lease(host, app)
    with pytest.raises(ExistsError):
        host.call(host.admin, "key.create", key="ssn", purpose="seal-public")
    assert open_one(host, app, before.seal("x")).value == "x"


def test_two_tenants_may_use_one_name_for_different_keys(host: HostWorld, app: Caller) -> None:
    host.call(host.other_admin, "key.create", key="ssn", purpose="seal")
    host.grant("admin", "decrypt", "key/ssn", by=host.other_admin)
    sealed = lease(host, app).seal("123-45-6789")
    assert open_one(host, app, sealed).value == "123-45-6789"
    # The kid is the same and the first tenant's data key is cached by now.
    assert open_one(host, host.other_admin, sealed).error == "open"


def test_after_a_rotation_the_new_version_seals_and_both_open(host: HostWorld, app: Caller) -> None:
    old = lease(host, app).seal("old")
    assert host.call(host.admin, "key.rotate", key="ssn").kid == "ssn.2"
    new = lease(host, app).seal("new")
    assert (old.kid, new.kid) == ("ssn.1", "ssn.2")
    assert [open_one(host, app, sealed).value for sealed in (old, new)] == ["old", "new"]
    [key] = host.call(host.principal("auditor", ("key.read", "key/*")), "key.list").keys
    assert [(v.kid, v.state) for v in key.versions] == [("ssn.1", "deactivated"), ("ssn.2", "active")]


def test_a_version_that_left_the_states_that_open_opens_no_more(host: HostWorld, app: Caller) -> None:
    from msgspec.structs import replace

    from cloister_host.keymanager.records import KEY_VERSIONS

    sealed = lease(host, app).seal("x")
    assert open_one(host, app, sealed).value == "x"
    with host.store.begin() as tx:
        row = tx.get(KEY_VERSIONS, "acme", "value/ssn.1")
        assert row is not None
        secret = tx.reveal(KEY_VERSIONS, row).reveal()
        life = row.record.life.moved("compromised", now=int(host.clock()))
        tx.put(KEY_VERSIONS, "acme", row.id, replace(row.record, life=life), secret=secret)
    # Its data key is still cached; the state decides.
    assert open_one(host, app, sealed).error == "open"
    with pytest.raises(ConfigurationError, match="rotate"):
        host.call(app, "key.data_key", key="ssn")


@pytest.mark.parametrize("op", ["key.rotate", "key.public"])
def test_a_key_that_does_not_exist_is_refused(host: HostWorld, op: str) -> None:
    with pytest.raises(ConfigurationError, match="no such key"):
        host.call(host.admin, op, key="nothing")


def test_key_material_is_not_in_the_database(host: HostWorld, app: Caller) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    dump = repr([host.pen(f"SELECT * FROM {table}") for table in ("keys", "key_versions", "audit")])
    assert issued.dek not in dump
    assert jose.b64url_decode(issued.dek).hex() not in dump
    assert '"k"' not in dump


# --- data keys ---


def test_a_data_key_carries_the_limits_of_the_protocol(host: HostWorld, app: Caller) -> None:
    issued = host.call(app, "key.data_key", key="ssn", key_context={"table": "members"})
    assert (issued.max_messages, issued.max_bytes, issued.max_age_seconds) == (2**24, 2**36, 300)


def test_every_data_key_is_fresh(host: HostWorld, app: Caller) -> None:
    assert len({host.call(app, "key.data_key", key="ssn").dek for _ in range(8)}) == 8


def test_a_wrapped_data_key_unwraps_to_itself(host: HostWorld, app: Caller) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    assert host.call(app, "key.unwrap", kid=issued.kid, encrypted_key=issued.encrypted_key).dek == issued.dek
    dek = jose.b64url_encode(bytes(range(32)))
    wrapped = host.call(app, "key.wrap", key="ssn", dek=dek)
    assert host.call(app, "key.unwrap", kid=wrapped.kid, encrypted_key=wrapped.encrypted_key).dek == dek


def test_what_another_version_wrapped_does_not_unwrap(host: HostWorld, app: Caller) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    host.call(host.admin, "key.rotate", key="ssn")
    with pytest.raises(OpenError):
        host.call(app, "key.unwrap", kid="ssn.2", encrypted_key=issued.encrypted_key)


def test_what_was_sealed_to_a_public_half_unwraps_with_its_encapsulation(
    host: HostWorld, app: Caller
) -> None:
    host.call(host.admin, "key.create", key="ssn-offline", purpose="seal-public")
    for right in ("unwrap", "key.read"):
        host.grant(app.principal, right, "key/ssn-offline")
    statement = host.call(app, "key.public", key="ssn-offline").statement
    jwk = json.loads(jose.b64url_decode(statement.split(".")[1]))["jwk"]
    sealed = seal_to("078-05-1120", jwk, kid="ssn-offline.1")
    wrapped = jose.b64url_encode(sealed.encrypted_key)
    dek = host.call(app, "key.unwrap", kid=sealed.kid, encrypted_key=wrapped, ek=sealed.header.ek).dek
    assert open_with_cek(sealed, jose.b64url_decode(dek)) == "078-05-1120"
    for without in ({}, {"ek": sealed.header.ek[:-4] + "AAAA"}):
        with pytest.raises(OpenError):
            host.call(app, "key.unwrap", kid=sealed.kid, encrypted_key=wrapped, **without)


def test_unwrapping_under_no_key_looks_like_unwrapping_under_the_wrong_one(
    host: HostWorld, app: Caller
) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    with pytest.raises(OpenError) as missing:
        host.call(app, "key.unwrap", kid="ssn.7", encrypted_key=issued.encrypted_key)
    with pytest.raises(OpenError) as wrong:
        host.call(app, "key.unwrap", kid="ssn.1", encrypted_key=jose.b64url_encode(bytes(40)))
    assert str(missing.value) == str(wrong.value)


@pytest.mark.parametrize("purpose", ["seal-public", "seal-public-fips"])
@pytest.mark.parametrize(("op", "more"), [("key.data_key", {}), ("key.wrap", {"dek": "A" * 43})])
def test_a_public_key_wraps_no_data_keys(
    host: HostWorld, purpose: str, op: str, more: dict[str, str]
) -> None:
    host.call(host.admin, "key.create", key="docs", purpose=purpose)
    who = host.principal("app", ("seal", "key/docs"), ("wrap", "key/docs"))
    with pytest.raises(ConfigurationError, match="public half"):
        host.call(who, op, key="docs", **more)


# --- public halves ---


@pytest.mark.parametrize(
    ("purpose", "alg"), [("seal-public", "HPKE-10-KE"), ("seal-public-fips", "HPKE-7-KE")]
)
def test_a_value_sealed_offline_to_the_vouched_for_half_opens(
    host: HostWorld, purpose: str, alg: str
) -> None:
    host.call(host.admin, "key.create", key="docs", purpose=purpose)
    who = host.principal("app", ("decrypt", "key/docs"))
    published = host.call(host.admin, "key.public", key="docs")
    public = verify_public_key(
        published.statement, deployment=host.root.deployment, tenant="acme", now=host.clock.now
    )
    assert (public.kid, public.purpose, public.jwk) == ("docs.1", purpose, published.jwk)
    assert public.jwk["alg"] == alg
    assert not {"d", "k", "priv"} & set(public.jwk)
    sealed = seal_to({"a": [1, None]}, public.jwk, kid=public.kid, context={"row": "1"})
    assert open_one(host, who, sealed, context={"row": "1"}).value == {"a": [1, None]}


def test_the_word_for_a_public_half_is_about_one_tenant_deployment_and_time(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="docs", purpose="seal-public")
    statement = host.call(host.admin, "key.public", key="docs").statement
    good: dict[str, Any] = {"deployment": host.root.deployment, "tenant": "acme", "now": host.clock.now}
    verify_public_key(statement, **good)
    for change in ({"deployment": "A" * 43}, {"tenant": "globex"}, {"now": host.clock.now + 24 * 3600}):
        with pytest.raises(EvidenceError):
            verify_public_key(statement, **(good | change))


def test_a_symmetric_key_has_no_public_half(host: HostWorld, app: Caller) -> None:
    with pytest.raises(ConfigurationError, match="symmetric"):
        host.call(app, "key.public", key="ssn")


# --- opening values ---


@pytest.mark.parametrize(
    ("value", "cty", "wire"),
    [
        (b"\x00\xff", "octets", "AP8"),
        ("text", "text", "text"),
        ({"a": [1, None, True]}, "json", {"a": [1, None, True]}),
        (None, "json", None),
    ],
)
def test_a_value_opens_as_what_was_sealed(
    host: HostWorld, app: Caller, value: Any, cty: str, wire: Any
) -> None:
    opened = open_one(host, app, lease(host, app).seal(value))
    assert (opened.cty, opened.value) == (cty, wire)


def test_one_bad_value_does_not_spoil_the_batch(host: HostWorld, app: Caller) -> None:
    dek = lease(host, app)
    good, bound = dek.seal("good"), dek.seal("bound", {"row": "1"})
    values = [
        {"sealed": good},
        {"sealed": bound, "context": {"row": "1"}},
        {"sealed": bound, "context": {"row": "2"}},
        {"sealed": bound},
        {"sealed": good, "context": {}},
        {"sealed": good[:-1] + ("A" if good[-1] != "A" else "Q")},
        {"sealed": "not sealed at all"},
        {"sealed": ""},
    ]
    opened = host.call(app, "value.open", values=values).values
    assert [item.value for item in opened[:2]] == ["good", "bound"]
    assert [item.error for item in opened[2:]] == ["open"] * 6


def test_opening_writes_one_audit_entry_a_value(host: HostWorld, app: Caller) -> None:
    sealed = lease(host, app).seal("123-45-6789")
    host.call(app, "value.open", values=[{"sealed": sealed}, {"sealed": "x"}, {"sealed": sealed}])
    entries = host.audited("value.open")
    assert [(e.resource, e.outcome) for e in entries] == [
        ("key/ssn", "done"),
        ("key/*", "failed"),
        ("key/ssn", "done"),
    ]
    assert "123-45-6789" not in repr(entries)


def test_values_under_a_key_without_the_right_deny_the_whole_batch(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="salaries", purpose="seal")
    host.principal("hr", ("seal", "key/salaries"))
    mine = lease(host, app).seal("mine")
    theirs = lease(host, caller("hr", kind="service"), "salaries").seal("theirs")
    with pytest.raises(DeniedError):
        host.call(app, "value.open", values=[{"sealed": mine}, {"sealed": theirs}])


def test_unwrapping_writes_one_audit_entry_a_data_key(host: HostWorld, app: Caller) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    host.call(app, "key.unwrap", kid=issued.kid, encrypted_key=issued.encrypted_key)
    [entry] = host.audited("key.unwrap")
    assert (entry.principal, entry.resource, entry.detail["kid"]) == ("app", "key/ssn", "ssn.1")
    assert issued.dek not in repr(entry)


# --- rights ---


@pytest.mark.parametrize(
    ("op", "right", "payload"),
    [
        ("key.create", "key.manage", {"key": "new", "purpose": "seal"}),
        ("key.rotate", "key.manage", {"key": "ssn"}),
        ("key.list", "key.read", {}),
        ("key.public", "key.read", {"key": "ssn"}),
        ("key.data_key", "seal", {"key": "ssn"}),
        ("key.wrap", "wrap", {"key": "ssn", "dek": "A" * 43}),
        ("key.unwrap", "unwrap", {"kid": "ssn.1", "encrypted_key": "A" * 54}),
    ],
)
def test_every_operation_needs_its_own_right(
    host: HostWorld, app: Caller, op: str, right: str, payload: dict[str, Any]
) -> None:
    rights = {"key.manage", "key.read", "seal", "wrap", "unwrap", "decrypt"}
    who = host.principal("nearly", *[(other, "*") for other in rights - {right}])
    with pytest.raises(DeniedError):
        host.call(who, op, **payload)
    [entry] = [e for e in host.audited(right) if e.outcome == "refused"]
    assert entry.principal == "nearly"


def test_opening_needs_the_right_decrypt(host: HostWorld, app: Caller) -> None:
    sealed = lease(host, app).seal("x")
    who = host.principal("nearly", ("unwrap", "*"), ("seal", "*"), ("key.manage", "*"))
    with pytest.raises(DeniedError):
        open_one(host, who, sealed)


# --- for confidential functions ---


@pytest.fixture
def function(host: HostWorld, app: Caller) -> Caller:
    host.call(host.admin, "key.create", key="forecasts", purpose="seal")
    host.grant("function:digest", "use-in-function", "key/ssn")
    host.grant("function:digest", "seal", "key/forecasts")
    return app.as_function("digest")


def test_a_function_gets_its_inputs_opened_and_its_output_sealed(
    host: HostWorld, app: Caller, function: Caller
) -> None:
    dek = lease(host, app)
    sealed = [dek.seal("a", {"row": "1"}), dek.seal("b", {"row": "2"}), dek.seal("c", {"row": "9"})]
    with host.store.begin() as tx:
        contexts = [{"row": "1"}, {"row": "2"}, {"row": "3"}]
        opened = host.services.keymanager.open_values(tx, function, "ssn", sealed, contexts)
        output = host.services.keymanager.seal_for_output(tx, function, "forecasts", {"x": 1}, {"row": "1"})
    assert opened[:2] == ["a", "b"]
    assert isinstance(opened[2], OpenError)
    host.grant("app", "decrypt", "key/forecasts")
    assert open_one(host, app, output, context={"row": "1"}).value == {"x": 1}
    assert open_one(host, app, output, context={"row": "2"}).error == "open"
    [entry] = host.audited("use-in-function")
    assert (entry.principal, entry.on_behalf_of) == ("function:digest", "app")
    assert entry.detail == {"values": 3, "failed": 1}


def test_a_value_under_another_key_than_the_manifest_names_does_not_open(
    host: HostWorld, app: Caller, function: Caller
) -> None:
    host.grant("app", "seal", "key/forecasts")
    host.grant("function:digest", "use-in-function", "key/forecasts")
    other = lease(host, app, "forecasts").seal("x")
    with host.store.begin() as tx:
        [opened] = host.services.keymanager.open_values(tx, function, "ssn", [other])
    assert isinstance(opened, OpenError)


def test_another_digest_has_no_rights(host: HostWorld, app: Caller, function: Caller) -> None:
    sealed = lease(host, app).seal("x")
    with pytest.raises(DeniedError), host.store.begin() as tx:
        host.services.keymanager.open_values(tx, app.as_function("other"), "ssn", [sealed])
    with pytest.raises(DeniedError), host.store.begin() as tx:
        host.services.keymanager.seal_values(tx, app.as_function("other"), "forecasts", ["x"])


@pytest.mark.parametrize("purpose", ["seal", "seal-public", "seal-public-fips"])
def test_a_batch_of_outputs_is_sealed_under_keys_of_every_purpose(
    host: HostWorld, function: Caller, purpose: str
) -> None:
    host.call(host.admin, "key.create", key="out", purpose=purpose)
    host.grant("function:digest", "seal", "key/out")
    values = [f"value {number}" for number in range(5)]
    with host.store.begin() as tx:
        sealed = host.services.keymanager.seal_values(tx, function, "out", values)
    who = host.principal("reader", ("decrypt", "key/out"))
    opened = host.call(who, "value.open", values=[{"sealed": value} for value in sealed]).values
    assert [item.value for item in opened] == values


def test_outputs_after_a_rotation_are_sealed_under_the_new_version(host: HostWorld, function: Caller) -> None:
    def seal() -> Sealed:
        with host.store.begin() as tx:
            return host.services.keymanager.seal_for_output(tx, function, "forecasts", "x", None)

    assert seal().kid == "forecasts.1"
    host.call(host.admin, "key.rotate", key="forecasts")
    assert seal().kid == "forecasts.2"


def test_a_data_key_of_a_key_that_was_rolled_back_seals_nothing(host: HostWorld, app: Caller) -> None:
    """Otherwise values would be sealed under a version that nobody has, and never open again."""
    host.grant("function:digest", "seal", "key/fresh")
    function, manager = app.as_function("digest"), host.services.keymanager

    def create_and_seal_in_vain() -> None:
        with host.store.begin() as tx:
            request = host.operations["key.create"].parse(b'{"key":"fresh","purpose":"seal"}')
            host.operations["key.create"].handler(host.admin, request, tx)
            manager.seal_for_output(tx, function, "fresh", "lost", None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        create_and_seal_in_vain()
    host.call(host.admin, "key.create", key="fresh", purpose="seal")
    with host.store.begin() as tx:
        sealed = manager.seal_for_output(tx, function, "fresh", "kept", None)
    host.grant("app", "decrypt", "key/fresh")
    assert open_one(host, app, sealed).value == "kept"


def test_as_many_contexts_as_values_are_needed(host: HostWorld, function: Caller) -> None:
    with host.store.begin() as tx:
        with pytest.raises(ConfigurationError):
            host.services.keymanager.open_values(tx, function, "ssn", ["a", "b"], [None])
        with pytest.raises(ConfigurationError):
            host.services.keymanager.seal_values(tx, function, "forecasts", ["a", "b"], [None])


# --- a pen in the database ---


@pytest.mark.parametrize("column", ["content", "secret", "mac"])
def test_a_key_version_that_was_changed_is_found_though_it_was_used_before(
    host: HostWorld, app: Caller, column: str
) -> None:
    sealed = lease(host, app).seal("x")
    host.pen(f"UPDATE key_versions SET {column} = substr({column}, 2)")
    with pytest.raises(TamperedError):
        open_one(host, app, sealed)


def test_a_destroyed_version_cannot_be_revived(host: HostWorld, app: Caller) -> None:
    from msgspec.structs import replace

    from cloister_host.keymanager.records import KEY_VERSIONS

    sealed = lease(host, app).seal("x")
    [[content]] = host.pen("SELECT content FROM key_versions WHERE id = 'value/ssn.1'")
    with host.store.begin() as tx:
        row = tx.get(KEY_VERSIONS, "acme", "value/ssn.1")
        assert row is not None
        gone = replace(row.record.life, state="destroyed")
        tx.put(KEY_VERSIONS, "acme", row.id, replace(row.record, life=gone))
    host.pen("UPDATE key_versions SET content = ? WHERE id = 'value/ssn.1'", content)
    with pytest.raises(TamperedError):
        open_one(host, app, sealed)


def test_another_keys_version_in_its_place_is_found(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="evil", purpose="seal")
    host.pen("DELETE FROM key_versions WHERE id = 'value/ssn.1'")
    host.pen("UPDATE key_versions SET id = 'value/ssn.1' WHERE id = 'value/evil.1'")
    with pytest.raises(TamperedError):
        host.call(app, "key.data_key", key="ssn")
