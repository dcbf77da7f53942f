"""Tokens as principals of a tenant get them: rights, views, budgets, rotation, revocation, errors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError
from cloister_host.audit.entry import Entry
from cloister_host.identity.caller import Caller, Kind
from cloister_host.keymanager.root import RootKey
from cloister_host.operations import Operation
from cloister_host.services import Services, bootstrap, build_services
from cloister_host.store import Store, TamperedError

PINS = {"plan": "vault", "type": "pin"}
SSN = {"plan": "ff1", "type": "ssn"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A store, its services, and principals of the tenant acme."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        root = RootKey.generate("test")
        self.store = Store(f"sqlite:///{path}", root.row_keys())
        self.store.migrate()
        self.services: Services = build_services(self.store, root, self.clock)
        self.operations: dict[str, Operation] = dict(self.services.operations())
        bootstrap(self.services)
        operator = Caller(tenant="system", principal="operator", kind="service", correlation_id="c")
        self.call(operator, "tenant.create", tenant="acme")
        self.admin = Caller(tenant="acme", principal="admin", kind="person", correlation_id="c")

    def call(self, caller: Caller, op: str, /, **payload: Any) -> Any:
        operation = self.operations[op]
        request = operation.parse(json.dumps(payload).encode())
        with self.store.begin() as tx:
            return operation.handler(caller, request, tx)

    def principal(self, name: str, *actions: str, kind: Kind = "service") -> Caller:
        self.call(self.admin, "principal.create", principal=name, kind=kind)
        for action in actions:
            self.grant(name, action)
        return Caller(tenant="acme", principal=name, kind=kind, correlation_id="c")

    def grant(self, name: str, action: str) -> None:
        self.call(self.admin, "grant.create", principal=name, action=action, resource="policy/*")

    def policy(self, name: str, document: dict[str, Any], **more: Any) -> Any:
        return self.call(self.admin, "policy.create", policy=name, **document, **more)

    def pen(self, statement: str, *parameters: Any) -> list[Any]:
        """Write in the database as whoever owns it could."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def audit(self, act: str) -> list[Entry]:
        with self.store.begin() as tx:
            entries = self.services.audit.read(tx, "acme", after="", limit=1000)
        return [entry for entry in entries if entry.act == act]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "host.db")
    yield world
    world.store.close()


@pytest.fixture
def app(world: World) -> Caller:
    return world.principal("app", "tokenize", "retokenize", "detokenize")


@pytest.mark.parametrize(
    "document",
    [
        PINS,
        SSN,
        {"plan": "vault", "alphabet": "digits", "length": 12},
        {"plan": "vault", "type": "ssn", "never_issued_tokens": True},
        {"plan": "vault", "type": "ssn", "preserve": {"suffix": 4}, "deterministic": True},
    ],
)
def test_values_come_back_in_their_order(world: World, app: Caller, document: dict[str, Any]) -> None:
    world.policy("p", document)
    values = ["4071", "0000", "4071"] if document is PINS else ["123-45-6789", "219-09-9999", "123-45-6789"]
    tokens = world.call(app, "token.tokenize", policy="p", values=values).tokens
    assert not set(tokens) & set(values)
    equal = document["plan"] == "ff1" or document.get("deterministic") is True
    assert (tokens[0] == tokens[2]) is equal
    answer = world.call(app, "token.detokenize", policy="p", tokens=[tokens[2], "x", tokens[1], tokens[0]])
    assert answer.values == [values[2], None, values[1], values[0]]
    assert answer.errors == {"1": "open"}
    assert answer.show == "plain"


def test_a_policy_is_created_with_its_arithmetic_and_listed(world: World) -> None:
    created = world.policy("ssn", SSN)
    assert created.arithmetic == "9 of 9 symbols: 10^9 = 1,000,000,000 values"
    assert world.call(world.admin, "policy.list").policies == [created]


def test_an_unsafe_policy_is_refused_and_not_kept(world: World, app: Caller) -> None:
    with pytest.raises(ConfigurationError, match="10\\^4"):
        world.policy("pins", {"plan": "ff1", "type": "pin"})
    with pytest.raises(ConfigurationError, match="no such policy"):
        world.call(app, "token.tokenize", policy="pins", values=["4071"])


def test_no_policy_without_the_right(world: World, app: Caller) -> None:
    with pytest.raises(DeniedError):
        world.call(app, "policy.create", policy="p", **SSN)
    world.policy("p", SSN)
    with pytest.raises(DeniedError):
        world.call(app, "policy.rotate", policy="p")
    with pytest.raises(DeniedError):
        world.call(app, "token.revoke", policy="p", tokens=["x"])


@pytest.mark.parametrize("op", ["token.tokenize", "token.detokenize", "token.retokenize"])
def test_a_principal_without_grants_gets_nothing_and_learns_nothing(world: World, op: str) -> None:
    stranger = world.principal("stranger")
    world.policy("p", SSN)
    items = {"values" if op == "token.tokenize" else "tokens": ["123-45-6789"]}
    errors = []
    for policy in ("p", "missing"):
        with pytest.raises(DeniedError) as caught:
            world.call(stranger, op, policy=policy, **items)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


# --- who may see plain values ------------------------------------------------------------------------


def test_a_faas_principal_tokenizes_retokenizes_and_sees_masked_values_only(world: World) -> None:
    world.policy("ssn", SSN, mask="***-**-{last:4}", views=[{"to": ["*"], "show": "plain"}])
    faas = world.principal("fn", "tokenize", "retokenize", "detokenize-masked", kind="faas")
    tokens = world.call(faas, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    answer = world.call(faas, "token.detokenize", policy="ssn", tokens=tokens)
    assert (answer.values, answer.show) == (["***-**-6789"], "masked")
    assert world.call(faas, "token.retokenize", policy="ssn", tokens=tokens).tokens == tokens


def test_a_faas_principal_is_never_granted_plain_detokenization(world: World) -> None:
    with pytest.raises(ConfigurationError, match="never granted"):
        world.principal("fn", "detokenize", kind="faas")


def test_a_faas_principal_is_refused_plain_values_even_with_a_grant(world: World) -> None:
    world.policy("ssn", SSN)
    world.principal("fn", "tokenize", "detokenize")
    disguised = Caller(tenant="acme", principal="fn", kind="faas", correlation_id="c")
    tokens = world.call(disguised, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    with pytest.raises(DeniedError):
        world.call(disguised, "token.detokenize", policy="ssn", tokens=tokens)
    assert [entry.outcome for entry in world.audit("detokenize")] == ["refused"]


def test_views_hold_for_each_reader(world: World, app: Caller) -> None:
    views = [
        {"to": ["fraud"], "show": "plain"},
        {"to": ["support"], "show": "masked", "pattern": "***-**-{last:4}"},
        {"to": ["tester"], "show": "redacted"},
    ]
    world.policy("ssn", SSN, views=views)
    tokens = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    seen = {}
    for name in ("fraud", "support", "tester"):
        reader = world.principal(name, "detokenize", kind="person")
        seen[name] = world.call(reader, "token.detokenize", policy="ssn", tokens=tokens).values
    assert seen == {"fraud": ["123-45-6789"], "support": ["***-**-6789"], "tester": ["[REDACTED]"]}
    with pytest.raises(DeniedError):
        world.call(app, "token.detokenize", policy="ssn", tokens=tokens)


def test_a_masked_grant_shows_nothing_without_a_mask(world: World, app: Caller) -> None:
    world.policy("ssn", SSN)
    reader = world.principal("reader", "detokenize-masked", kind="person")
    tokens = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    with pytest.raises(DeniedError):
        world.call(reader, "token.detokenize", policy="ssn", tokens=tokens)


# --- budgets -----------------------------------------------------------------------------------------


def test_a_walk_through_tokens_is_stopped_and_recorded(world: World, app: Caller) -> None:
    world.policy("pins", PINS, limits={"per_minute": 5, "per_day": 8})
    guesses = [f"{number:022}" for number in range(5)]
    assert world.call(app, "token.detokenize", policy="pins", tokens=guesses).values == [None] * 5
    with pytest.raises(LimitError, match="a minute") as caught:
        world.call(app, "token.detokenize", policy="pins", tokens=["x"])
    assert caught.value.retryable
    world.clock.now += 60
    with pytest.raises(LimitError, match="a day"):
        world.call(app, "token.detokenize", policy="pins", tokens=guesses[:4])
    assert len(world.call(app, "token.detokenize", policy="pins", tokens=guesses[:3]).values) == 3
    world.clock.now += 86_400
    assert len(world.call(app, "token.detokenize", policy="pins", tokens=guesses).values) == 5
    refused = [entry for entry in world.audit("token.detokenize") if entry.outcome == "refused"]
    assert [entry.detail for entry in refused] == [
        {"values": 1, "reason": "budget"},
        {"values": 4, "reason": "budget"},
    ]


def test_a_batch_over_the_budget_shows_nothing_at_all(world: World, app: Caller) -> None:
    world.policy("pins", PINS, limits={"per_minute": 2})
    tokens = world.call(app, "token.tokenize", policy="pins", values=["1111", "2222", "3333"]).tokens
    with pytest.raises(LimitError) as caught:
        world.call(app, "token.detokenize", policy="pins", tokens=tokens)
    assert not caught.value.retryable
    assert world.call(app, "token.detokenize", policy="pins", tokens=tokens[:2]).values == ["1111", "2222"]


def test_each_principal_and_policy_has_a_budget_of_its_own(world: World, app: Caller) -> None:
    for name in ("a", "b"):
        world.policy(name, PINS, limits={"per_minute": 1})
    other = world.principal("other", "detokenize")
    for caller in (app, other):
        for policy in ("a", "b"):
            world.call(caller, "token.detokenize", policy=policy, tokens=["x"])
            with pytest.raises(LimitError):
                world.call(caller, "token.detokenize", policy=policy, tokens=["x"])


def test_a_function_spends_the_budget_of_whoever_runs_it(world: World, app: Caller) -> None:
    world.policy("pins", PINS, limits={"per_minute": 1})
    world.grant("function:abc", "detokenize")
    function = app.as_function("abc")
    with world.store.begin() as tx:
        assert world.services.tokenization.detokenize(tx, function, "pins", ["x"]) == [None]
    with pytest.raises(LimitError):
        world.call(app, "token.detokenize", policy="pins", tokens=["x"])


def test_a_clock_set_back_opens_no_new_budget(world: World, app: Caller) -> None:
    world.policy("pins", PINS, limits={"per_minute": 1})
    world.call(app, "token.detokenize", policy="pins", tokens=["x"])
    world.clock.now -= 90_000
    with pytest.raises(LimitError):
        world.call(app, "token.detokenize", policy="pins", tokens=["x"])


def test_a_budget_edited_in_the_database_is_found(world: World, app: Caller) -> None:
    world.policy("pins", PINS)
    world.call(app, "token.detokenize", policy="pins", tokens=["x"])
    world.pen("UPDATE token_budgets SET content = replace(content, '1', '0')")
    with pytest.raises(TamperedError):
        world.call(app, "token.detokenize", policy="pins", tokens=["x"])


def test_pins_have_a_small_budget_unless_the_policy_says_otherwise(world: World, app: Caller) -> None:
    world.policy("pins", PINS)
    with pytest.raises(LimitError, match="60 values a minute"):
        world.call(app, "token.detokenize", policy="pins", tokens=["x"] * 61)


# --- purposes, references, errors --------------------------------------------------------------------


def test_a_purpose_is_asked_for_and_recorded(world: World, app: Caller) -> None:
    world.policy("ssn", SSN, purposes=["fraud-review"])
    tokens = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    for wrong in ({}, {"purpose": "curiosity"}):
        with pytest.raises(ConfigurationError, match="purpose"):
            world.call(app, "token.detokenize", policy="ssn", tokens=tokens, **wrong)
    world.call(app, "token.detokenize", policy="ssn", tokens=tokens, purpose="fraud-review")
    entries = world.audit("token.detokenize")
    assert [entry.outcome for entry in entries] == ["refused", "refused", "done"]
    assert entries[-1].detail == {"values": 1, "failed": 0, "show": "plain", "purpose": "fraud-review"}


def test_references_come_back_and_must_fit(world: World, app: Caller) -> None:
    world.policy("ssn", SSN)
    values = ["123-45-6789", "219-09-9999"]
    answer = world.call(app, "token.tokenize", policy="ssn", values=values, references=["row-7", "row-9"])
    assert answer.references == ["row-7", "row-9"]
    with pytest.raises(ConfigurationError, match="as many"):
        world.call(app, "token.tokenize", policy="ssn", values=values, references=["row-7"])


@pytest.mark.parametrize("document", [SSN, {"plan": "vault", "type": "ssn"}, {"plan": "hash", "type": "ssn"}])
def test_a_value_that_does_not_fit_fails_all_or_itself_and_is_never_shown(
    world: World, app: Caller, document: dict[str, Any]
) -> None:
    world.policy("ssn", document)
    values = ["123-45-6789", "123-45-678X", "219-09-9999"]
    with pytest.raises(ConfigurationError, match="1 of 3 values") as caught:
        world.call(app, "token.tokenize", policy="ssn", values=values)
    assert "678X" not in str(caught.value)
    answer = world.call(app, "token.tokenize", policy="ssn", values=values, partial=True)
    assert answer.errors == {"1": "format"}
    assert [token is None for token in answer.tokens] == [False, True, False]


@pytest.mark.parametrize("document", [{"plan": "hash", "type": "ssn"}, {"plan": "redact"}])
def test_nothing_comes_back_from_a_one_way_plan(world: World, app: Caller, document: dict[str, Any]) -> None:
    world.policy("p", document)
    tokens = world.call(app, "token.tokenize", policy="p", values=["123-45-6789"]).tokens
    assert tokens != ["123-45-6789"]
    for op in ("token.detokenize", "token.retokenize"):
        with pytest.raises(ConfigurationError, match="nothing comes back"):
            world.call(app, op, policy="p", tokens=tokens)


def test_the_callers_tweak_is_asked_for(world: World, app: Caller) -> None:
    world.policy("ssn", SSN, tweak="caller")
    with pytest.raises(ConfigurationError, match="needs a tweak"):
        world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"])
    values, tweaks = ["123-45-6789"] * 2, ["a", "b"]
    both = world.call(app, "token.tokenize", policy="ssn", values=values, tweaks=tweaks).tokens
    assert both[0] != both[1]
    answer = world.call(app, "token.detokenize", policy="ssn", tokens=both, tweaks=tweaks)
    assert answer.values == values


def test_messages_do_not_show_values_in_their_repr(world: World) -> None:
    request = world.operations["token.tokenize"].parse(b'{"policy":"p","values":["123-45-6789"]}')
    assert "6789" not in repr(request)


# --- rotation, expiry, revocation --------------------------------------------------------------------


def test_rotation_orphans_no_token(world: World, app: Caller) -> None:
    world.policy("ssn", SSN)
    first = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"])
    assert world.call(world.admin, "policy.rotate", policy="ssn").key_version == 2
    second = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"])
    assert (first.key_version, second.key_version) == (1, 2)
    assert first.tokens != second.tokens
    old = world.call(app, "token.detokenize", policy="ssn", tokens=first.tokens, key_version=1)
    assert old.values == world.call(app, "token.detokenize", policy="ssn", tokens=second.tokens).values
    moved = world.call(app, "token.retokenize", policy="ssn", tokens=first.tokens, key_version=1)
    assert (moved.tokens, moved.key_version) == (second.tokens, 2)
    with pytest.raises(ConfigurationError, match="no such key version"):
        world.call(app, "token.detokenize", policy="ssn", tokens=first.tokens, key_version=3)


def test_tokens_move_to_another_policy_without_showing_values(world: World, app: Caller) -> None:
    world.policy("vault", {"plan": "vault", "alphabet": "digits", "length": 12})
    world.policy("ssn", SSN)
    tokens = world.call(app, "token.tokenize", policy="vault", values=["123-45-6789", "no number"]).tokens
    mover = world.principal("mover", "retokenize", "tokenize")
    moved = world.call(mover, "token.retokenize", policy="vault", to="ssn", tokens=[*tokens, "123456789012"])
    assert moved.errors == {"1": "open", "2": "open"}
    assert world.call(app, "token.detokenize", policy="ssn", tokens=moved.tokens[:1]).values == [
        "123-45-6789"
    ]


def test_tokens_do_not_move_to_a_mask_which_would_show_what_their_own_policy_hides(
    world: World, app: Caller
) -> None:
    world.policy("ssn", {**SSN, "views": [{"to": ["*"], "show": "denied"}]})
    world.policy("others", {"plan": "redact", "mask": "{last:4}"})
    tokens = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    faas = world.principal("fn", "tokenize", "retokenize", kind="faas")
    with pytest.raises(ConfigurationError, match="a mask is no token"):
        world.call(faas, "token.retokenize", policy="ssn", to="others", tokens=tokens)


def test_retokenization_needs_both_rights(world: World, app: Caller) -> None:
    world.policy("ssn", SSN)
    tokens = world.call(app, "token.tokenize", policy="ssn", values=["123-45-6789"]).tokens
    for name, action in (("a", "retokenize"), ("b", "tokenize")):
        half = world.principal(name, action)
        with pytest.raises(DeniedError):
            world.call(half, "token.retokenize", policy="ssn", tokens=tokens)


def test_only_ff1_keys_rotate(world: World) -> None:
    world.policy("pins", PINS)
    with pytest.raises(ConfigurationError, match="no key to rotate"):
        world.call(world.admin, "policy.rotate", policy="pins")


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_vault_token_expires(world: World, app: Caller, deterministic: bool) -> None:
    world.policy("pins", PINS, ttl_seconds=60, deterministic=deterministic)
    old = world.call(app, "token.tokenize", policy="pins", values=["4071"]).tokens
    world.clock.now += 59
    assert world.call(app, "token.detokenize", policy="pins", tokens=old).values == ["4071"]
    world.clock.now += 1
    gone = world.call(app, "token.detokenize", policy="pins", tokens=old)
    assert (gone.values, gone.errors) == ([None], {"0": "open"})
    new = world.call(app, "token.tokenize", policy="pins", values=["4071"]).tokens
    assert new != old
    assert world.call(app, "token.detokenize", policy="pins", tokens=new).values == ["4071"]


def test_a_revoked_token_looks_like_one_that_never_was(world: World, app: Caller) -> None:
    world.policy("pins", PINS, deterministic=True)
    tokens = world.call(app, "token.tokenize", policy="pins", values=["4071", "1111"]).tokens
    assert world.call(world.admin, "token.revoke", policy="pins", tokens=[tokens[0], "x"]).revoked == 1
    answer = world.call(app, "token.detokenize", policy="pins", tokens=[*tokens, "x"])
    assert (answer.values, answer.errors) == ([None, "1111", None], {"0": "open", "2": "open"})
    assert world.call(app, "token.tokenize", policy="pins", values=["4071"]).tokens != tokens[:1]
    world.policy("ssn", SSN)
    with pytest.raises(ConfigurationError, match="only vault"):
        world.call(world.admin, "token.revoke", policy="ssn", tokens=["123-45-6789"])


def test_vault_tokens_run_out_with_an_error_and_never_collide(world: World, app: Caller) -> None:
    world.policy("ssn", {"plan": "vault", "type": "ssn", "preserve": {"suffix": 5}})
    values = ["123-46-6789"] * 2500  # the four digits that are replaced make 10,000 tokens
    tokens: list[str] = []

    def tokenize_all() -> None:
        for _ in range(5):
            tokens.extend(world.call(app, "token.tokenize", policy="ssn", values=values).tokens)

    with pytest.raises(LimitError, match="hardly any tokens"):
        tokenize_all()
    assert len(tokens) >= 5000
    assert len(set(tokens)) == len(tokens)
    assert all(token.endswith("6-6789") for token in tokens)


def test_threads_that_tokenize_one_value_at_once_get_one_token(world: World, app: Caller) -> None:
    world.policy("pins", PINS, deterministic=True)
    values = [f"{pin:04}" for pin in range(200)]

    def work(_number: int) -> list[str | None]:
        return list(world.call(app, "token.tokenize", policy="pins", values=values).tokens)

    with ThreadPoolExecutor(8) as pool:
        columns = list(pool.map(work, range(16)))
    assert all(column == columns[0] for column in columns)
    assert len(set(columns[0])) == len(values)


def test_no_value_stands_in_the_database_in_the_clear(world: World, app: Caller, tmp_path: Path) -> None:
    world.policy("v", {"plan": "vault"}, deterministic=True)
    world.call(app, "token.tokenize", policy="v", values=["unmistakable-value"])
    world.store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"unmistakable" not in stored


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vault SET value = (SELECT value FROM vault v WHERE v.token != vault.token)",
        "UPDATE vault SET token = 'x' || token",
    ],
)
def test_a_vault_row_changed_in_the_database_is_found(world: World, app: Caller, change: str) -> None:
    world.policy("pins", PINS)
    tokens = world.call(app, "token.tokenize", policy="pins", values=["1111", "2222"]).tokens
    with world.store.begin() as tx:
        tx.execute(text(change), {})
    with pytest.raises(TamperedError):
        world.call(app, "token.detokenize", policy="pins", tokens=[*tokens, *(f"x{t}" for t in tokens)])


def test_look_up_hashes_swapped_in_the_database_are_found(world: World, app: Caller) -> None:
    world.policy("pins", PINS, deterministic=True)
    world.call(app, "token.tokenize", policy="pins", values=["1111", "2222"])
    (first, lookup), (second, other_lookup) = world.pen("SELECT token, lookup FROM vault")
    world.pen("UPDATE vault SET lookup = NULL")
    world.pen("UPDATE vault SET lookup = ? WHERE token = ?", other_lookup, first)
    world.pen("UPDATE vault SET lookup = ? WHERE token = ?", lookup, second)
    with pytest.raises(TamperedError):
        world.call(app, "token.tokenize", policy="pins", values=["1111"])


def test_a_function_of_the_tenant_tokenizes_with_its_own_right(world: World, app: Caller) -> None:
    world.policy("pins", PINS)
    function = app.as_function("abc")
    with world.store.begin() as tx, pytest.raises(DeniedError):
        world.services.tokenization.tokenize(tx, function, "pins", ["4071"])
    world.grant("function:abc", "tokenize")
    with world.store.begin() as tx:
        (token,) = world.services.tokenization.tokenize(tx, function, "pins", ["4071"])
    assert world.call(app, "token.detokenize", policy="pins", tokens=[token]).values == ["4071"]
    with world.store.begin() as tx, pytest.raises(ConfigurationError, match="do not fit") as caught:
        world.services.tokenization.tokenize(tx, function, "pins", ["40x1"])
    assert "40x1" not in str(caught.value)


def test_policies_and_tenants_keep_their_tokens_apart(world: World, app: Caller) -> None:
    for name in ("a", "b"):
        world.policy(name, SSN)
        world.policy(f"{name}-vault", PINS)
    values = ["123-45-6789"]
    ff1 = [world.call(app, "token.tokenize", policy=name, values=values).tokens for name in ("a", "b")]
    assert ff1[0] != ff1[1]
    vault = world.call(app, "token.tokenize", policy="a-vault", values=["4071"]).tokens
    assert world.call(app, "token.detokenize", policy="b-vault", tokens=vault).values == [None]


@pytest.mark.parametrize("token", ["\ud800", "\0", "", "x" * 4096, "' OR 1=1 --"])
@pytest.mark.parametrize("document", [PINS, SSN])
def test_hostile_tokens_are_tokens_that_do_not_open(
    world: World, app: Caller, document: dict[str, Any], token: str
) -> None:
    world.policy("p", document)
    try:
        answer = world.call(app, "token.detokenize", policy="p", tokens=[token])
    except CloisterError as error:
        assert error.code == "configuration"  # noqa: PT017 - JSON cannot carry half a pair
        assert "\ud800" in token
    else:
        assert answer.errors == {"0": "open"}
