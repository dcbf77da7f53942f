"""Bring your own key and take it along: wrapped, bound to what it is, and only where that was said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister import jose
from cloister.envelope import DataKey, Dek
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    EvidenceError,
    OpenError,
    QuorumNeededError,
)
from cloister.jose import b64url_encode
from cloister.protocol.key_transfer import KeyName, symmetric_jwk, unwrap_key_material, wrap_key_material
from cloister.protocol.public_key import verify_public_key
from cloister.secret import Secret
from cloister_host.identity.caller import Caller
from cloister_host.store import ExistsError
from support.faults import crash_at_every_step
from support.host_world import HostWorld
from unit.host.keymanager.test_administration import move, scheduler
from unit.host.keymanager.test_keys import open_one

KINDS = [
    ("seal", "A256KW"),
    ("seal-public", "HPKE-10-KE"),
    ("seal-public", "HPKE-7-KE"),
    ("tokenize", "tokenize"),
    ("mac", "HS256"),
    ("sign", "EdDSA"),
    ("sign", "ES384"),
    ("sign", "ML-DSA-65"),
]


def material(alg: str) -> dict[str, str]:
    if alg in {"tokenize", "HS256"}:
        return symmetric_jwk(os.urandom(32), alg)
    return jose.generate_key(alg).to_jwk()  # type: ignore[arg-type]


def prepare(host: HostWorld, key: str = "mine", purpose: str = "seal", **more: Any) -> Any:
    return host.call(host.admin, "key.import_key", key=key, purpose=purpose, **more)


def name_of(prepared: Any, **change: str) -> KeyName:
    members = {"tenant": "acme", "kid": prepared.kid, "purpose": prepared.purpose, "alg": prepared.alg}
    return KeyName(**(members | change))


def bring(host: HostWorld, prepared: Any, jwk: Mapping[str, str], **change: str) -> Any:
    wrapped = wrap_key_material(jwk, prepared.jwk, name_of(prepared, **change), "import")
    return host.call(host.admin, "key.import", import_id=prepared.import_id, wrapped=wrapped)


@pytest.fixture
def officer(host: HostWorld) -> Caller:
    return host.principal("officer", ("key.export", "key/*"))


@pytest.mark.parametrize("suite", ["HPKE-10-KE", "HPKE-7-KE"])
@pytest.mark.parametrize(("purpose", "alg"), KINDS)
def test_a_key_comes_in_and_goes_out_as_what_it_is(
    host: HostWorld, officer: Caller, purpose: str, alg: str, suite: Any
) -> None:
    jwk = material(alg)
    prepared = prepare(host, purpose=purpose, alg=alg, suite=suite, exportable=True)
    made = bring(host, prepared, jwk)
    assert (made.kid, made.purpose, made.alg) == ("mine.1", purpose, alg)
    [version] = host.call(host.admin, "key.show", key="mine").key.versions
    assert (version.origin, version.state) == ("imported", "active")

    mine = jose.generate_key(suite)
    out = host.call(officer, "key.export", kid="mine.1", to=mine.public().to_jwk())
    name = KeyName(tenant="acme", kid="mine.1", purpose=out.purpose, alg=out.alg)
    assert unwrap_key_material(out.wrapped, mine, name, "export") == {
        k: v for k, v in jwk.items() if k != "kid"
    }


def test_what_was_sealed_elsewhere_under_a_key_opens_once_it_is_imported(host: HostWorld) -> None:
    jwk = jose.generate_key("A256KW").to_jwk()
    dek = Secret(os.urandom(32))
    sealed = Dek(
        DataKey(kid="mine.1", dek=dek, encrypted_key=jose.wrap_key(dek, jose.Key.from_jwk(jwk))), now=0
    ).seal("from home")
    bring(host, prepare(host), jwk)
    assert open_one(host, host.principal("app", ("decrypt", "key/mine")), sealed).value == "from home"


def test_the_import_key_is_vouched_for_by_the_deployment_and_passes_for_no_other(host: HostWorld) -> None:
    prepared = prepare(host)
    found = verify_public_key(
        prepared.statement, deployment=host.root.deployment, tenant="acme", now=host.clock.now
    )
    assert (found.purpose, found.kid, found.jwk) == ("import", prepared.import_id, prepared.jwk)
    with pytest.raises(EvidenceError):
        verify_public_key(prepared.statement, deployment="A" * 43, tenant="acme", now=host.clock.now)


@pytest.mark.parametrize(
    "change",
    [{"tenant": "globex"}, {"kid": "mine.2"}, {"kid": "other.1"}, {"purpose": "mac"}, {"alg": "HS256"}],
)
def test_a_key_wrapped_as_something_else_does_not_come_in(host: HostWorld, change: dict[str, str]) -> None:
    prepared = prepare(host)
    with pytest.raises(OpenError):
        bring(host, prepared, material("A256KW"), **change)
    with pytest.raises(ConfigurationError, match="no such key"):
        host.call(host.admin, "key.show", key="mine")
    # The import still waits: nothing came of it.
    assert bring(host, prepared, material("A256KW")).kid == "mine.1"


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "alg": "A256KW", "k": b64url_encode(bytes(32))},
        {"kty": "oct", "alg": "A256KW", "k": b64url_encode(os.urandom(16))},
        {"kty": "oct", "alg": "HS256", "k": b64url_encode(os.urandom(32))},
        jose.generate_key("EdDSA").to_jwk(),
        {},
    ],
    ids=["zero", "short", "of another purpose", "signing", "empty"],
)
def test_what_is_no_key_of_the_announced_kind_does_not_come_in(host: HostWorld, jwk: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="no private JWK"):
        bring(host, prepare(host), jwk)


@pytest.mark.parametrize("key", [b"\0" * 32, b"x" * 31])
@pytest.mark.parametrize("purpose", ["mac", "tokenize"])
def test_weak_symmetric_keys_do_not_come_in(host: HostWorld, key: bytes, purpose: str) -> None:
    prepared = prepare(host, purpose=purpose)
    with pytest.raises(ConfigurationError):
        bring(host, prepared, {"kty": "oct", "alg": prepared.alg, "k": b64url_encode(key)})


def test_a_public_half_is_no_key_to_import(host: HostWorld) -> None:
    with pytest.raises(ConfigurationError, match="no private JWK"):
        bring(host, prepare(host, purpose="sign"), jose.generate_key("EdDSA").public().to_jwk())


def test_an_import_key_is_good_once_and_for_an_hour(host: HostWorld) -> None:
    prepared, late = prepare(host), prepare(host, key="late")
    bring(host, prepared, material("A256KW"))
    with pytest.raises(OpenError):
        bring(host, prepared, material("A256KW"))
    host.clock.now += 3600
    with pytest.raises(OpenError):
        bring(host, late, material("A256KW"))
    scheduler(host).round()
    assert host.pen("SELECT count(*) FROM import_keys") == [(0,)]


def test_the_next_version_of_a_key_can_be_brought(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="seal")
    prepared = prepare(host)
    assert prepared.kid == "mine.2"
    bring(host, prepared, material("A256KW"))
    shown = host.call(host.admin, "key.show", key="mine").key
    assert [(v.kid, v.state, v.origin) for v in shown.versions] == [
        ("mine.1", "deactivated", "generated"),
        ("mine.2", "active", "imported"),
    ]


def test_a_key_of_another_kind_cannot_be_brought_under_a_name_that_is_taken(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="mac")
    with pytest.raises(ConfigurationError, match="this key exists"):
        prepare(host)


def test_of_two_imports_of_one_version_one_comes_in(host: HostWorld) -> None:
    first, second = prepare(host), prepare(host)
    bring(host, first, material("A256KW"))
    with pytest.raises(ExistsError):
        bring(host, second, material("A256KW"))
    third, fourth = prepare(host), prepare(host)
    bring(host, third, material("A256KW"))
    with pytest.raises(ConfigurationError, match="rotated meanwhile"):
        bring(host, fourth, material("A256KW"))


def test_an_import_of_another_tenant_is_one_that_is_not_there(host: HostWorld) -> None:
    prepared = prepare(host)
    wrapped = wrap_key_material(material("A256KW"), prepared.jwk, name_of(prepared), "import")
    for import_id in (prepared.import_id, "import-" + "A" * 22):
        with pytest.raises(OpenError):
            host.call(host.other_admin, "key.import", import_id=import_id, wrapped=wrapped)


def test_a_key_that_was_not_created_exportable_never_leaves(host: HostWorld, officer: Caller) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="seal")
    to = jose.generate_key("HPKE-10-KE").public().to_jwk()
    with pytest.raises(ConfigurationError, match="never leaves"):
        host.call(officer, "key.export", kid="mine.1", to=to)
    assert host.audited("key.export") == []


@pytest.mark.parametrize("state", ["suspended", "compromised"])
def test_a_version_that_may_not_be_used_does_not_leave(host: HostWorld, officer: Caller, state: str) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="seal", exportable=True)
    move(host, "mine.1", state)
    to = jose.generate_key("HPKE-10-KE").public().to_jwk()
    with pytest.raises(ConfigurationError, match="present state"):
        host.call(officer, "key.export", kid="mine.1", to=to)


@pytest.mark.parametrize("alg", ["A256KW", "EdDSA", "HPKE-7-KE"])
def test_a_key_leaves_only_to_a_public_half(host: HostWorld, officer: Caller, alg: Any) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="seal", exportable=True)
    with pytest.raises(ConfigurationError):
        host.call(officer, "key.export", kid="mine.1", to=jose.generate_key(alg).to_jwk())


def test_export_has_a_right_of_its_own_that_no_faas_principal_gets(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="seal", exportable=True)
    to = jose.generate_key("HPKE-10-KE").public().to_jwk()
    with pytest.raises(DeniedError):
        host.call(host.admin, "key.export", kid="mine.1", to=to)
    host.principal("lambda", kind="faas")
    for action in ("key.export", "key.import"):
        with pytest.raises(ConfigurationError, match="never granted"):
            host.grant("lambda", action, "key/*")


def test_a_tenant_can_put_exports_under_quorum(host: HostWorld, officer: Caller) -> None:
    host.call(host.admin, "key.create", key="mine", purpose="seal", exportable=True)
    ann = host.principal("ann", ("approve", "act/*"), kind="person")
    host.call(host.admin, "quorum.set", act="key.export", approvals=1)
    to = jose.generate_key("HPKE-10-KE").public().to_jwk()
    with pytest.raises(QuorumNeededError) as waiting:
        host.call(officer, "key.export", kid="mine.1", to=to)
    host.call(ann, "proposal.approve", proposal=waiting.value.proposal_id)
    with pytest.raises(QuorumNeededError):  # to somebody else it is another act
        host.call(officer, "key.export", kid="mine.1", to=jose.generate_key("HPKE-10-KE").public().to_jwk())
    assert host.call(officer, "key.export", kid="mine.1", to=to).wrapped


def test_an_import_that_crashes_at_any_step_has_brought_nothing(
    host: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, jwk = prepare(host), material("A256KW")
    died = crash_at_every_step(
        monkeypatch, host, lambda: bring(host, prepared, jwk), "keys", "key_versions", "import_keys", "audit"
    )
    assert died >= 4


def test_neither_brought_nor_import_keys_are_in_the_database_in_the_clear(host: HostWorld) -> None:
    jwk = material("A256KW")
    bring(host, prepare(host), jwk)
    prepare(host, key="other")
    tables = ("keys", "key_versions", "import_keys", "audit")
    dump = repr([host.pen(f"SELECT * FROM {table}") for table in tables])
    assert jwk["k"] not in dump
    assert '"priv"' not in dump


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_hostile_material_is_a_clear_error(host: HostWorld, data: st.DataObject) -> None:
    # One import key for all examples: none of them may use it up.
    prepared = vars(host).setdefault("prepared", vars(host).get("prepared") or prepare(host))
    good = wrap_key_material(material("A256KW"), prepared.jwk, name_of(prepared), "import")
    place = data.draw(st.integers(0, len(good) - 1))
    hostile = data.draw(
        st.one_of(
            st.text(max_size=200), st.just(good[:place]), st.just(good[:place] + "!" + good[place + 1 :])
        )
    )
    with pytest.raises(CloisterError):
        host.call(host.admin, "key.import", import_id=prepared.import_id, wrapped=hostile)
