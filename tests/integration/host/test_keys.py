"""Keys as people and programs use them: the guide's commands, both clients, and clear errors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloister import AsyncClient, jose
from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, DeniedError, OpenError
from cloister_host.embedded import embedded_host
from support.documents import DOCS, run_blocks

CLOISTER = str(Path(sys.executable).with_name("cloister"))
ACTIONS = ("seal", "encrypt", "decrypt", "mac", "sign", "verify", "rewrap", "key.export", "key.import")
RIGHTS = [*((action, "key/*") for action in ACTIONS), ("random", "random/bytes")]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def tenant(host):
    tenant = host.tenant()
    yield tenant
    tenant.admin.close()


@pytest.fixture
def app(tenant):
    tenant.admin.call("key.create", {"key": "notes", "purpose": "seal"})
    tenant.admin.call("key.create", {"key": "stamp", "purpose": "mac"})
    tenant.admin.call("key.create", {"key": "contracts", "purpose": "sign"})
    with tenant.client("app", RIGHTS) as client:
        yield client


def test_the_guide_runs_as_written(tenant, tmp_path):
    printed = run_blocks(DOCS / "keys.md", tmp_path, tenant.environment("admin"))
    assert "meet at nine" in printed[1]
    assert "contracts.1" in printed[2]
    assert printed[5].startswith("orders.2 1 b'meet at nine'")
    assert printed[9].strip() == "True"
    versions = tenant.admin.call("key.show", {"key": "orders"})["key"]["versions"]
    assert [version["state"] for version in versions] == ["deactivated", "active", "pre_activation"]


@pytest.mark.parametrize("guide", ["secrets.md", "tokenization.md"])
def test_the_guides_to_secrets_and_tokens_run_as_written(tenant, tmp_path, guide):
    printed = "".join(run_blocks(DOCS / guide, tmp_path, tenant.environment("admin")))
    if guide == "secrets.md":
        assert "s3cr3t-2" in printed
        assert "rotate-partner@prod" in printed
    else:
        assert '"domain": "1000000000"' in printed


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pin.toml", 'plan = "ff1"\ntype = "pin"\nlength = 4\n', "10,000"),
        ("bad.toml", "plan = ", "neither TOML nor JSON"),
        ("list.json", "[]", "neither TOML nor JSON"),
        ("deep.json", "[" * 100_000, "neither TOML nor JSON"),
        ("odd.json", '{"plan": "vault", "magic": 1}', "API description"),
        ("none.json", None, "cannot be read"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_the_reason(tenant, tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    for command in (["check", name], ["create", name, "--name", "p"]):
        done = subprocess.run(
            [CLOISTER, "token-policy", *command],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **tenant.environment("admin")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert tenant.admin.call("policy.list", {})["policies"] == []


def test_the_client_does_what_the_guide_says_it_does(tenant, app):
    ciphertext = app.encrypt(b"hello", key="notes", aad=b"17")
    assert app.decrypt(ciphertext, aad=b"17") == b"hello"
    with pytest.raises(OpenError):
        app.decrypt(ciphertext, aad=b"18")
    for proof in (app.mac(b"x", key="stamp"), app.sign(b"x", key="contracts")):
        app.verify(b"x", proof)
        with pytest.raises(OpenError):
            app.verify(b"y", proof)
    assert len(app.random(48)) == 48
    sealed = app.seal_many(["a", "b"], key="notes", contexts=[{"row": "1"}, None])
    tenant.admin.call("key.rotate", {"key": "notes"})
    moved = app.rewrap(sealed, key="notes", contexts=[{"row": "1"}, None])
    assert (moved.kid, moved.moved, moved.kept) == ("notes.2", 2, 0)
    assert [Sealed(value).kid for value in moved.values] == ["notes.2"] * 2
    assert app.open_many(moved.values, contexts=[{"row": "1"}, None]) == ["a", "b"]
    with pytest.raises(ConfigurationError, match="one context or aad a value"):
        app.rewrap(sealed, key="notes", contexts=[None])


@pytest.mark.parametrize("suite", ["HPKE-10-KE", "HPKE-7-KE"])
def test_a_key_comes_in_and_goes_out_through_the_client(app, suite):
    jwk = jose.generate_key("ES256").to_jwk()
    assert app.import_key("mine", jwk, purpose="sign", exportable=True, suite=suite) == "mine.1"
    keep = jose.generate_key(suite)
    assert app.export_key("mine.1", keep).unwrap(keep) == jwk
    with pytest.raises(OpenError):
        app.export_key("mine.1", keep).unwrap(jose.generate_key(suite))
    with pytest.raises(ConfigurationError, match="private JWK"):
        app.import_key("other", bytes(range(32)), purpose="sign")


def test_the_async_client_does_the_same(tenant, app):
    async def work():
        client = AsyncClient.from_env(
            url=tenant.host.url,
            tenant=tenant.name,
            policy=str(tenant.host.policy),
            api_key_file=str(tenant.key_file("app")),
            identity="key",
        )
        async with client:
            ciphertext = await client.encrypt(b"hello", key="notes")
            assert await client.decrypt(ciphertext) == b"hello"
            await client.verify(b"x", await client.mac(b"x", key="stamp"))
            await client.verify(b"x", await client.sign(b"x", key="contracts"))
            assert len(await client.random(16)) == 16
            assert (
                await client.import_key("mine", bytes(range(32)), purpose="mac", exportable=True) == "mine.1"
            )
            keep = jose.generate_key("HPKE-10-KE")
            assert (await client.export_key("mine.1", keep)).unwrap(keep)["k"] == jose.b64url_encode(
                bytes(range(32))
            )
            assert (await client.rewrap([ciphertext], key="notes")).moved == 0

    asyncio.run(work())


def test_one_operation_needs_its_own_grant(tenant, app):
    with tenant.client("other", [("encrypt", "key/notes")]) as other:
        other.encrypt(b"x", key="notes")
        with pytest.raises(DeniedError):
            other.mac(b"x", key="stamp")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["key", "create", "x", "--rotate-every", "often"], "90d"),
        (["key", "create", "x", "--activate-at", "tomorrow"], "+90d"),
        (["key", "create", "x", "--activate-at", "2030-01-01"], "+90d"),
        (["key", "create", "x", "--purpose", "sign", "--alg", "A256KW"], "EdDSA"),
        (["key", "create", "x", "--purpose", "everything"], "API description"),
        (["key", "state", "nothing.1", "suspended"], "key.create"),
        (["key", "state", "notes.1", "destroyed"], "API description"),
        (["key", "state", "notes.1", "pre_activation"], "API description"),
        (["key", "restore", "notes.1"], "way back"),
        (["key", "destroy", "notes.1", "--wait", "1d", "--yes"], "longer"),
        (["key", "schedule", "notes", "--min-open", "9"], "rotate first"),
        (["key", "import", "x", "--file", "nothing"], "cannot be read"),
        (["secret", "get", "nothing"], "grant"),
        (["secret", "put", "x", "--ttl", "soon"], "90d"),
        (["secret", "put", "x"], "pipe it in"),
        (["secret", "rotate", "nothing"], "secret.put"),
        (["key", "verify", "rubbish"], ""),
    ],
)
def test_what_a_command_cannot_do_it_says_and_changes_nothing(tenant, app, tmp_path, arguments, hint):
    before = tenant.admin.call("key.list", {})
    settings = {"PATH": os.environ["PATH"], **tenant.environment("admin")}
    done = subprocess.run(
        [CLOISTER, *arguments],
        cwd=tmp_path,
        env=settings,
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert hint in done.stderr
    assert tenant.admin.call("key.list", {}) == before


def test_a_grant_for_one_purpose_counts_where_that_purpose_is_stated(tenant):
    admin = tenant.admin
    admin.call("key.create", {"key": "notes", "purpose": "seal"})
    admin.call("key.create", {"key": "stamp", "purpose": "mac"})
    admin.call("policy.create", {"policy": "names", "plan": "vault"})
    with tenant.client("clerk", [("seal", "key/notes")]) as clerk:
        rights = [(action, "key/*") for action in ("encrypt", "decrypt", "unwrap", "rewrap", "mac", "verify")]
        rights += [("random", "random/bytes"), ("tokenize", "policy/names"), ("detokenize", "policy/names")]
        for action, resource in rights:
            grant = {"principal": "clerk", "action": action, "resource": resource}
            admin.call("grant.create", {**grant, "conditions": {"purposes": ["inquest"]}})
        sealed = clerk.seal("x", key="notes")
        ciphertext = clerk.encrypt(b"x", key="notes", purpose="inquest")
        mac = clerk.mac(b"x", key="stamp", purpose="inquest")
        tokens = clerk.tokenize("names", ["x"], purpose="inquest")
        acts = {
            "encrypt": lambda **why: clerk.encrypt(b"x", key="notes", **why),
            "encrypt_many": lambda **why: clerk.encrypt_many([b"x"], key="notes", **why),
            "decrypt": lambda **why: clerk.decrypt(ciphertext, **why),
            "decrypt_many": lambda **why: clerk.decrypt_many([ciphertext], **why),
            "mac": lambda **why: clerk.mac(b"x", key="stamp", **why),
            "verify": lambda **why: clerk.verify(b"x", mac, **why),
            "rewrap": lambda **why: clerk.rewrap([sealed], key="notes", **why),
            "random": lambda **why: clerk.random(32, **why),
            "tokenize": lambda **why: clerk.tokenize("names", ["x"], **why),
            "detokenize": lambda **why: clerk.detokenize("names", tokens, **why),
            "open": lambda **why: clerk.open(sealed, **why),
            "open_column": lambda **why: clerk.open_column([sealed], **why),
        }
        for act in acts.values():
            for why in ({}, {"purpose": "curiosity"}):
                with pytest.raises(DeniedError):
                    act(**why)
            act(purpose="inquest")
