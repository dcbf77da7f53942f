"""Who is asking, and that a wrong credential tells nothing but that it is wrong."""

from __future__ import annotations

import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import IdentityError
from cloister_host.identity.api_keys import ApiKeyHasher, new_api_key, parse_api_key
from cloister_host.identity.records import TENANTS
from cloister_host.store import TamperedError
from support.host_world import HostWorld


def refusal(host: HostWorld, api_key: str, *, tenant: str = "acme") -> tuple[str, str, str, bool]:
    with pytest.raises(IdentityError) as caught:
        host.authenticate(api_key, tenant=tenant)
    assert caught.value.__cause__ is None
    error = caught.value
    return str(error), error.hint, error.code, error.retryable


def test_the_right_key_gives_the_caller(host: HostWorld) -> None:
    who = host.authenticate(host.admin_key)
    assert (who.tenant, who.principal, who.kind) == ("acme", "admin", "person")


def test_every_refusal_is_the_same(host: HostWorld) -> None:
    good = host.admin_key
    disabled = host.call(host.admin, "principal.create", principal="gone", kind="service").api_key
    host.call(host.admin, "principal.disable", principal="gone")
    leaving = host.call(host.operator, "tenant.create", tenant="leaving").api_key
    with host.store.begin() as tx:
        tx.delete(TENANTS, "system", "leaving")
    wrong_secret = good[:-1] + ("A" if good[-1] != "A" else "Q")
    unknown_id = good.replace(good[4:20], "0123456789abcdef")
    refusals = {
        refusal(host, wrong_secret),
        refusal(host, unknown_id),
        refusal(host, good, tenant="globex"),
        refusal(host, good, tenant="nobody"),
        refusal(host, good, tenant="Not A Tenant"),
        refusal(host, good, tenant="system"),
        refusal(host, disabled),
        refusal(host, leaving, tenant="leaving"),
        refusal(host, ""),
        refusal(host, "clk_"),
        refusal(host, good + "\n"),
        refusal(host, f" {good}"),
        refusal(host, good.upper()),
    }
    assert len(refusals) == 1


def test_a_refusal_repeats_nothing_of_the_credential(host: HostWorld) -> None:
    text = refusal(host, host.admin_key[:-1] + ("A" if host.admin_key[-1] != "A" else "Q"))[0]
    assert host.admin_key[4:20] not in text
    assert host.admin_key[21:40] not in text


@pytest.mark.parametrize(
    "credential",
    [
        {},
        {"type": "api-key"},
        {"value": "x"},
        {"type": "oidc", "value": "x"},
        {"type": "api-key", "value": 7},
        {"type": "api-key", "value": None},
        {"type": "api-key", "value": ["x"]},
    ],
)
def test_a_malformed_credential_is_refused(host: HostWorld, credential: dict[str, object]) -> None:
    with pytest.raises(IdentityError), host.store.begin() as tx:
        host.services.identity.authenticate(tx, "acme", credential, correlation_id="c")


@pytest.mark.parametrize("kind", ["oidc", "", None, "API-KEY"])
def test_an_api_key_under_another_type_is_refused(host: HostWorld, kind: object) -> None:
    credential = {"type": kind, "value": host.admin_key}
    with pytest.raises(IdentityError), host.store.begin() as tx:
        host.services.identity.authenticate(tx, "acme", credential, correlation_id="c")


def test_a_credential_with_another_member_is_refused(host: HostWorld) -> None:
    credential = {"type": "api-key", "value": host.admin_key, "principal": "operator"}
    with pytest.raises(IdentityError), host.store.begin() as tx:
        host.services.identity.authenticate(tx, "acme", credential, correlation_id="c")


def test_an_api_key_has_256_random_bits_and_its_form(host: HostWorld) -> None:
    assert re.fullmatch(r"clk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", host.admin_key)
    assert len({new_api_key()[1] for _ in range(64)}) == 64


def test_an_api_key_is_not_in_the_database(host: HostWorld) -> None:
    host.pen("PRAGMA wal_checkpoint(TRUNCATE)")
    assert host.admin_key[21:].encode() not in host.path.read_bytes()


def test_the_stored_hash_is_keyed_by_the_root_and_bound_to_tenant_and_name(host: HostWorld) -> None:
    key = parse_api_key(host.admin_key)
    hasher = ApiKeyHasher(host.root.api_key_hash_key())
    [[stored]] = host.pen("SELECT content FROM api_keys WHERE id = ?", key.id)
    assert hasher.hash("acme", key) in stored
    renamed = type(key)(id="0" * 16, secret=key.secret)
    assert len({hasher.hash("acme", key), hasher.hash("globex", key), hasher.hash("acme", renamed)}) == 3


def test_an_api_key_of_another_principal_written_into_the_row_is_found(host: HostWorld) -> None:
    mine = host.call(host.admin, "principal.create", principal="mallory", kind="service").api_key
    host.pen(
        """UPDATE api_keys SET content = replace(content, '"mallory"', '"admin"') WHERE id = ?""", mine[4:20]
    )
    with pytest.raises(TamperedError):
        host.authenticate(mine)


def test_a_disabled_principal_cannot_be_enabled_in_the_database(host: HostWorld) -> None:
    key = host.call(host.admin, "principal.create", principal="gone", kind="service").api_key
    before = host.pen("SELECT * FROM api_keys WHERE id = ?", key[4:20])[0]
    host.call(host.admin, "principal.disable", principal="gone")
    # The deleted key is put back as it was.
    host.pen("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)", *before)
    with pytest.raises(TamperedError):
        host.authenticate(key)


def test_a_rotated_key_put_back_in_the_database_is_refused(host: HostWorld) -> None:
    before = host.pen("SELECT * FROM api_keys WHERE id = ?", host.admin_key[4:20])[0]
    operator = host.admin
    new = host.call(operator, "principal.rotate_key", principal="admin").api_key
    host.pen("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)", *before)
    with pytest.raises(TamperedError):
        host.authenticate(host.admin_key)
    host.pen("DELETE FROM api_keys WHERE id = ?", host.admin_key[4:20])
    assert host.authenticate(new).principal == "admin"


def test_comparison_is_in_constant_time_even_for_an_unknown_key(
    host: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same hashing and comparing is done whether the key exists or not."""
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def counting(one: str, two: str) -> bool:
        compared.append((len(one), len(two)))
        return original(one, two)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    refusal(host, host.admin_key.replace(host.admin_key[4:20], "0123456789abcdef"))
    assert compared == [(43, 43)]


@given(st.text() | st.from_regex(r"clk_[0-9a-f]{15,17}_[A-Za-z0-9_-]{42,44}"))
def test_any_text_is_an_api_key_or_an_identity_error(text: str) -> None:
    try:
        parsed = parse_api_key(text)
    except IdentityError as error:
        assert str(error) == "the credential was not accepted"  # noqa: PT017 (most texts do not parse)
    else:
        assert text == f"clk_{parsed.id}_{parsed.secret.reveal().decode()}"
        assert parsed.secret.reveal().decode() not in repr(parsed)
