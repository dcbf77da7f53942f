"""OIDC issuers: whom they vouch for, how their keys come, and what happens when they do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    IdentityError,
    LimitError,
    QuorumNeededError,
    UnavailableError,
)
from cloister.protocol import audience
from cloister_host.identity.claims import check_wanted, could_both_match, first_mismatch
from cloister_host.identity.issuer_keys import Fetched
from support.host_world import HostWorld, caller
from support.token_issuer import TokenIssuer

ROLE = "arn:aws:iam::123456789012:role/forecast"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:forecast"
STS = "https://sts.amazonaws.com/"


class Web:
    """What the issuers answer, and how often they were asked."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.asked: list[str] = []
        self.fresh: int | None = None
        self.down = False

    def serve(self, issuer: TokenIssuer) -> None:
        self.documents[f"{issuer.url}/.well-known/openid-configuration"] = issuer.discovery()
        self.documents[f"{issuer.url}/jwks"] = issuer.jwks()

    def __call__(self, _tenant: str, url: str) -> Fetched:
        self.asked.append(url)
        if self.down or url not in self.documents:
            raise UnavailableError("down")
        document = self.documents[url]
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return Fetched(body=body, fresh_seconds=self.fresh)


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def host(tmp_path: Path, web: Web) -> Iterator[HostWorld]:
    world = HostWorld(tmp_path, fetch=web)
    yield world
    world.close()


@pytest.fixture
def issuer(host: HostWorld, web: Web) -> TokenIssuer:
    """Trusted by acme; `app` is bound to a role of it."""
    issuer = TokenIssuer()
    web.serve(issuer)
    host.call(host.admin, "issuer.create", issuer=issuer.url)
    host.call(host.admin, "principal.create", principal="app", kind="faas", api_key=False)
    bind(host, issuer, "app", sub=ROLE)
    return issuer


def bind(host: HostWorld, issuer: TokenIssuer, principal: str, /, **claims: Any) -> Any:
    return host.call(host.admin, "principal.bind", principal=principal, issuer=issuer.url, claims=claims)


def token(host: HostWorld, issuer: TokenIssuer, **change: Any) -> dict[str, Any]:
    now = int(host.clock.now)
    claims = {"sub": ROLE, "aud": audience(host.root.deployment), "iat": now, "exp": now + 300, **change}
    claims = {name: value for name, value in claims.items() if value is not None}
    return {"type": "oidc", "value": issuer.token(claims)}


def refused(host: HostWorld, credential: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(IdentityError) as caught:
        host.sign_in(credential, **more)
    assert caught.value.__cause__ is None
    return str(caught.value), caught.value.hint


def test_a_token_gives_the_bound_principal_and_its_claims(host: HostWorld, issuer: TokenIssuer) -> None:
    who = host.sign_in(token(host, issuer))
    assert (who.tenant, who.principal, who.kind) == ("acme", "app", "faas")
    assert who.claims["sub"] == ROLE
    assert ROLE not in repr(who)


def test_a_lambda_is_pinned_by_role_and_function(host: HostWorld, web: Web) -> None:
    aws = TokenIssuer("https://0a1b.tokens.sts.global.api.aws", "ES384")
    web.serve(aws)
    host.call(host.admin, "issuer.create", issuer=aws.url, algorithms=["ES384"], max_lifetime_seconds=900)
    for name, function in (("forecast", FUNCTION), ("other", FUNCTION + "-other")):
        host.call(host.admin, "principal.create", principal=name, kind="faas", api_key=False)
        bind(host, aws, name, **{"sub": ROLE, STS: {"lambda_source_function_arn": function}})
    claims = {STS: {"lambda_source_function_arn": FUNCTION, "aws_account": "123456789012"}}
    assert host.sign_in(token(host, aws, **claims)).principal == "forecast"
    for wrong in ({STS: {"lambda_source_function_arn": FUNCTION + "-third"}}, {STS: {}}, {STS: FUNCTION}, {}):
        refused(host, token(host, aws, **wrong))


def test_every_refusal_is_the_same(host: HostWorld, issuer: TokenIssuer, web: Web) -> None:
    good = token(host, issuer)
    stranger = TokenIssuer("https://stranger.example")
    web.serve(stranger)
    now = int(host.clock.now)
    said = {
        refused(host, {"type": "oidc", "value": good["value"][:-4] + "AAAA"}),
        refused(host, {"type": "oidc", "value": "x.y.z"}),
        refused(host, {"type": "oidc", "value": ""}),
        refused(host, {"type": "api-key", "value": good["value"]}),
        refused(host, good, tenant="globex"),
        refused(host, good, tenant="nobody"),
        refused(host, token(host, stranger)),
        refused(host, token(host, issuer, sub="somebody")),
        refused(host, token(host, issuer, aud="cloister:other")),
        refused(host, token(host, issuer, aud=None)),
        refused(host, token(host, issuer, exp=now - 100, iat=now - 200)),
        refused(host, token(host, issuer, iat=now + 100)),
        refused(host, token(host, issuer, exp=now + 4000)),
        refused(host, {**good, "principal": "admin"}),
    }
    assert len(said) == 1


def test_only_named_issuers_are_ever_asked(host: HostWorld, issuer: TokenIssuer, web: Web) -> None:
    stranger = TokenIssuer("https://169.254.169.254")
    refused(host, token(host, stranger))
    refused(host, token(host, issuer), tenant="globex")
    assert web.asked == []


def test_a_disabled_principal_is_refused(host: HostWorld, issuer: TokenIssuer) -> None:
    host.call(host.admin, "principal.disable", principal="app")
    refused(host, token(host, issuer))


def test_a_binding_or_issuer_that_was_ended_is_ended_at_once(host: HostWorld, issuer: TokenIssuer) -> None:
    good = token(host, issuer)
    host.sign_in(good)
    host.call(host.admin, "principal.unbind", principal="app", issuer=issuer.url, claims={"sub": ROLE})
    refused(host, good)
    bind(host, issuer, "app", sub=ROLE)
    host.sign_in(good)
    host.call(host.admin, "issuer.delete", issuer=issuer.url)
    refused(host, good)
    # An issuer of the same name does not bring the old bindings back.
    host.call(host.admin, "issuer.create", issuer=issuer.url)
    refused(host, good)
    assert host.call(host.admin, "principal.bindings").bindings == []


def test_an_expired_token_stays_expired_when_the_clock_is_set_back(
    host: HostWorld, issuer: TokenIssuer
) -> None:
    old = token(host, issuer)
    host.clock.now += 3600
    host.sign_in(token(host, issuer))
    host.clock.now -= 3600
    refused(host, old)


def test_a_token_whose_signature_was_checked_still_expires(host: HostWorld, issuer: TokenIssuer) -> None:
    good = token(host, issuer)
    host.sign_in(good)
    host.clock.now += 400
    refused(host, good)


# --- keys of issuers ----------------------------------------------------------------------------------


def test_keys_are_fetched_once_and_kept(host: HostWorld, issuer: TokenIssuer, web: Web) -> None:
    for _ in range(3):
        host.sign_in(token(host, issuer))
    assert web.asked == [f"{issuer.url}/.well-known/openid-configuration", f"{issuer.url}/jwks"]


def test_a_rotated_key_comes_in_with_its_first_token(host: HostWorld, issuer: TokenIssuer, web: Web) -> None:
    host.sign_in(token(host, issuer))
    old = token(host, issuer)
    issuer.rotate("k2")
    web.serve(issuer)
    host.monotonic.now += 61
    assert host.sign_in(token(host, issuer)).principal == "app"
    # A key that the issuer has withdrawn is gone, also for a token that was checked before.
    refused(host, old)


def test_unknown_keys_make_the_issuer_be_asked_once_a_minute(
    host: HostWorld, issuer: TokenIssuer, web: Web
) -> None:
    host.sign_in(token(host, issuer))
    web.asked.clear()
    host.monotonic.now += 61
    for number in range(20):
        issuer.rotate(f"unknown-{number}")
        refused(host, token(host, issuer))
    assert web.asked.count(f"{issuer.url}/jwks") == 1


def test_an_outage_is_bridged_for_a_stated_time_and_no_longer(
    host: HostWorld, issuer: TokenIssuer, web: Web
) -> None:
    web.fresh = 3600
    host.sign_in(token(host, issuer))
    web.down = True
    host.monotonic.now += 3600 + 12 * 3600 - 400
    assert host.sign_in(token(host, issuer)).principal == "app"
    host.monotonic.now += 500
    with pytest.raises(UnavailableError, match="keys"):
        host.sign_in(token(host, issuer))
    web.down = False
    host.monotonic.now += 30
    assert host.sign_in(token(host, issuer)).principal == "app"


def test_during_an_outage_the_issuer_is_asked_now_and_then_only(
    host: HostWorld, issuer: TokenIssuer, web: Web
) -> None:
    web.down = True
    for _ in range(10):
        with pytest.raises(UnavailableError):
            host.sign_in(token(host, issuer))
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b'{"keys": []}', b"x" * 200_000, {"keys": [{"kty": "oct", "k": "AAAA", "kid": "k1"}]}],
    ids=["empty", "html", "no-keys", "huge", "symmetric"],
)
def test_an_answer_that_is_no_key_set_changes_nothing(
    host: HostWorld, issuer: TokenIssuer, web: Web, answer: Any
) -> None:
    host.sign_in(token(host, issuer))
    web.documents[f"{issuer.url}/jwks"] = answer
    host.monotonic.now += 4000
    assert host.sign_in(token(host, issuer)).principal == "app"


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example", "jwks_uri": "https://issuer.example/jwks"},
        {"jwks_uri": "https://issuer.example/jwks"},
        {"issuer": "https://issuer.example"},
        {"issuer": "https://issuer.example", "jwks_uri": 7},
        b"[]",
    ],
    ids=["another", "unnamed", "no-keys", "number", "array"],
)
def test_a_discovery_document_that_is_not_its_own_is_not_followed(
    host: HostWorld, issuer: TokenIssuer, web: Web, document: Any
) -> None:
    web.documents[f"{issuer.url}/.well-known/openid-configuration"] = document
    with pytest.raises(UnavailableError):
        host.sign_in(token(host, issuer))


def test_pinned_keys_need_no_network(tmp_path: Path) -> None:
    host, issuer = HostWorld(tmp_path), TokenIssuer(algorithm="RS256")
    host.call(host.admin, "issuer.create", issuer=issuer.url, jwks=issuer.jwks())
    host.call(host.admin, "principal.create", principal="app", kind="service", api_key=False)
    bind(host, issuer, "app", sub=ROLE)
    assert host.sign_in(token(host, issuer)).principal == "app"
    old = token(host, issuer)
    issuer.rotate("k2")
    refused(host, token(host, issuer))
    host.call(host.admin, "issuer.update", issuer=issuer.url, jwks=issuer.jwks())
    assert host.sign_in(token(host, issuer)).principal == "app"
    refused(host, old)
    host.close()


def test_without_a_way_out_keys_have_to_be_pinned(tmp_path: Path) -> None:
    host, issuer = HostWorld(tmp_path), TokenIssuer()
    host.call(host.admin, "issuer.create", issuer=issuer.url)
    with pytest.raises(UnavailableError):
        host.sign_in(token(host, issuer))
    host.close()


# --- administration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        {"issuer": "http://issuer.example"},
        {"issuer": "https://user@issuer.example"},
        {"issuer": "https://issuer.example/?x=1"},
        {"issuer": "https://issuer.example/#x"},
        {"issuer": "https://issuer.example\n"},
        {"issuer": "ca:Corp"},
        {"issuer": "https://a.example", "jwks": {"keys": []}},
        {"issuer": "https://a.example", "jwks_url": "http://a.example/jwks"},
        {"issuer": "https://a.example", "jwks": {"keys": [{}]}, "jwks_url": "https://a.example/jwks"},
        {"issuer": "https://a.example", "audience": "https://enclave.example"},
        {"issuer": "https://a.example", "algorithms": ["HS256"]},
        {"issuer": "https://a.example", "algorithms": []},
        {"issuer": "https://a.example", "max_lifetime_seconds": 100_000},
        {"issuer": "https://a.example", "certificates": "x"},
        {"issuer": "ca:corp"},
        {"issuer": "ca:corp", "certificates": "x"},
    ],
    ids=str,
)
def test_an_issuer_that_cannot_be_meant_is_refused(host: HostWorld, payload: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        host.call(host.admin, "issuer.create", **payload)
    assert host.call(host.admin, "issuer.list").issuers == []


def test_another_audience_must_name_the_deployment_too(host: HostWorld, web: Web) -> None:
    """Entra gives out no audience but a registered application's."""
    entra, wanted = TokenIssuer("https://login.microsoftonline.com/tid/v2.0"), f"api://{host.root.deployment}"
    web.serve(entra)
    host.call(host.admin, "issuer.create", issuer=entra.url, audience=wanted)
    host.principal("app")
    bind(host, entra, "app", sub=ROLE, tid="t-1")
    assert host.sign_in(token(host, entra, aud=wanted, tid="t-1")).principal == "app"
    refused(host, token(host, entra, tid="t-1"))


def test_bindings_that_two_principals_could_meet_are_refused(host: HostWorld, issuer: TokenIssuer) -> None:
    host.principal("other")
    for claims in ({"sub": ROLE}, {"sub": ROLE, "email": "x"}):
        with pytest.raises(ConfigurationError, match="those of another principal"):
            bind(host, issuer, "other", **claims)
    assert bind(host, issuer, "app", sub=ROLE, email="x")
    assert bind(host, issuer, "other", sub=ROLE + "-other")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"email": "x"},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x", "groups": ["a"]},
        {"sub": "x", "n": 1.5},
        {"sub": "x", "n": None},
        {"sub": "x", "n": {}},
        {"sub": "x", "a": {"b": {"c": {"d": 1}}}},
        {"sub": "x" * 3000},
        {"sub": "x", **{f"c{n}": 1 for n in range(40)}},
    ],
    ids=lambda claims: str(claims)[:40],
)
def test_claims_that_cannot_be_demanded_are_refused(
    host: HostWorld, issuer: TokenIssuer, claims: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        bind(host, issuer, "app", **claims)


def test_a_claim_is_equal_only_as_the_same_json() -> None:
    assert first_mismatch({"n": 1}, {"n": 1}) is None
    for found in ({"n": True}, {"n": "1"}, {"n": 1.0}, {"n": [1]}, {"n": None}, {}, {"m": 1}):
        assert first_mismatch(found, {"n": 1}) == "n"
    assert first_mismatch({"a": {"b": "x"}}, {"a": {"b": "y"}}) == "a.b"


leaves = st.text(max_size=3) | st.integers(0, 3) | st.booleans()
wanted = st.dictionaries(
    st.sampled_from("abc"), leaves | st.dictionaries(st.sampled_from("xy"), leaves, min_size=1), min_size=1
)


@given(one=wanted, two=wanted, claims=wanted)
def test_demands_that_cannot_both_be_met_never_are(one: Any, two: Any, claims: Any) -> None:
    check_wanted(one)
    both = first_mismatch(claims, one) is None and first_mismatch(claims, two) is None
    assert could_both_match(one, two) or not both
    assert could_both_match(one, two) == could_both_match(two, one)


def test_a_faas_principal_never_manages_issuers(host: HostWorld) -> None:
    host.principal("lambda", kind="faas")
    with pytest.raises(ConfigurationError, match="never granted"):
        host.grant("lambda", "issuer.manage", "issuer/*")
    for op in ("issuer.create", "issuer.delete"):
        with pytest.raises(DeniedError):
            host.call(caller("lambda", kind="faas"), op, issuer="https://a.example")


def test_binding_an_approver_or_changing_an_issuer_needs_the_quorum(
    host: HostWorld, issuer: TokenIssuer
) -> None:
    for name in ("ann", "bob"):
        host.principal(name, ("approve", "act/*"), kind="person")
    host.call(host.admin, "quorum.set", act="key.destroy", approvals=1)
    acts: list[tuple[str, Callable[[], Any]]] = [
        ("quorum.change", lambda: bind(host, issuer, "ann", sub="mallory")),
        (
            "quorum.change",
            lambda: host.call(host.admin, "issuer.update", issuer=issuer.url, jwks=issuer.jwks()),
        ),
    ]
    for act, change in acts:
        with pytest.raises(QuorumNeededError) as caught:
            change()
        assert host.call(caller("ann"), "proposal.show", proposal=caught.value.proposal_id).act == act
    assert bind(host, issuer, "app", sub="free")


def test_an_issuer_or_binding_written_with_a_pen_is_found(host: HostWorld, issuer: TokenIssuer) -> None:
    host.pen("""UPDATE bindings SET content = replace(content, '"app"', '"admin"')""")
    with pytest.raises(CloisterError, match="outside the host"):
        host.sign_in(token(host, issuer))
    host.pen("UPDATE issuers SET content = replace(content, 'ES256', 'RS256')")
    with pytest.raises(CloisterError, match="outside the host"):
        host.sign_in(token(host, issuer))


# --- failures -----------------------------------------------------------------------------------------


def test_failures_are_counted_and_told_once_a_minute(host: HostWorld, issuer: TokenIssuer) -> None:
    for number in range(30):
        refused(host, token(host, issuer, sub=f"nobody-{number}"))
    assert host.services.identity.attempts.total == 30
    told = [entry.detail["count"] for entry in host.audited("login")]
    assert told == [1]
    host.monotonic.now += 61
    host.sign_in(token(host, issuer))
    entries = host.audited("login")
    assert [entry.detail["count"] for entry in entries] == [1, 29]
    assert {(entry.outcome, entry.principal) for entry in entries} == {("refused", "anonymous")}


def test_a_credential_that_keeps_failing_is_not_looked_at_again(host: HostWorld) -> None:
    wrong = host.admin_key[:-1] + ("A" if host.admin_key[-1] != "A" else "Q")
    for _ in range(10):
        with pytest.raises(IdentityError):
            host.authenticate(wrong)
    with pytest.raises(LimitError, match="too often"):
        host.authenticate(wrong)
    # The right key of the same name is not kept out by it.
    assert host.authenticate(host.admin_key).principal == "admin"
    host.monotonic.now += 61
    with pytest.raises(IdentityError):
        host.authenticate(wrong)


def test_whoever_tries_many_secrets_under_one_name_has_to_wait(host: HostWorld) -> None:
    answers = []
    for number in range(110):
        try:
            host.authenticate(f"{host.admin_key[:21]}{number:043d}")
        except CloisterError as error:
            answers.append(type(error))
    assert answers[0] is IdentityError
    assert answers[-1] is LimitError
    assert host.authenticate(host.admin_key).principal == "admin"


def test_failures_are_bounded_in_memory(host: HostWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloister_host.identity import attempts

    monkeypatch.setattr(attempts, "MAX_NAMES", 8)
    monkeypatch.setattr(attempts, "MAX_TENANTS", 8)
    for number in range(50):
        with pytest.raises(IdentityError):
            host.authenticate(host.admin_key, tenant=f"tenant-{number}")
    kept = host.services.identity.attempts
    assert len(kept._names) <= 8
    assert len(kept._tenants) <= 8
