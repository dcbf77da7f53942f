"""A client signs in with a token and with a certificate, over real requests and a real issuer's server."""

from __future__ import annotations

import datetime as dt
import json
import time
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister import Client
from cloister.errors import IdentityError
from cloister.protocol import audience
from cloister_host.embedded import embedded_host
from support.client_authority import Authority
from support.https import Answered, https_server
from support.token_issuer import TokenIssuer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    with https_server("localhost") as web:
        issuer = TokenIssuer(f"https://localhost:{web.port}", "ES384")

        def answer(request):
            known = {"/.well-known/openid-configuration": issuer.discovery(), "/jwks": issuer.jwks()}
            document = known.get(request.path)
            return (
                Answered(status=200, body=json.dumps(document).encode()) if document else Answered(status=404)
            )

        web.answer = answer
        anchor = folder / "anchor.pem"
        anchor.write_bytes(web.trust_anchor)
        with embedded_host(
            folder, egress_trust_anchors=[anchor], egress_allow_private_addresses=True
        ) as host:
            tenant = host.tenant()
            yield SimpleNamespace(host=host, tenant=tenant, issuer=issuer, web=web, folder=folder)
            tenant.admin.close()


def client(world, identity, **settings):
    return Client.from_env(
        url=world.host.url,
        tenant=world.tenant.name,
        policy=str(world.host.policy),
        identity=identity,
        **settings,
    )


def claims(world, **change):
    now = int(time.time())
    return {"sub": "app", "aud": audience(world.host.host.deployment), "iat": now, "exp": now + 300, **change}


def test_a_token_of_an_issuer_on_the_network_signs_in(world):
    admin = world.tenant.admin
    admin.call("issuer.create", {"issuer": world.issuer.url})
    admin.call("principal.create", {"principal": "app", "kind": "service", "api_key": False})
    admin.call("principal.bind", {"principal": "app", "issuer": world.issuer.url, "claims": {"sub": "app"}})
    admin.call("grant.create", {"principal": "app", "action": "key.read", "resource": "*"})
    file = world.folder / "token"
    file.write_text(world.issuer.token(claims(world)))
    with client(world, "token", token_file=str(file)) as app:
        assert app.call("key.list", {})["keys"] == []
        # The platform renews the file; the client reads it again.
        file.write_text(world.issuer.token(claims(world, aud="cloister:another")))
        with pytest.raises(IdentityError):
            app.call("key.list", {})
    assert [request.path for request in world.web.received] == ["/.well-known/openid-configuration", "/jwks"]


def test_a_client_certificate_signs_in(world):
    admin, authority = world.tenant.admin, Authority.create(now=dt.datetime.now(dt.UTC))
    chain, key_file = world.folder / "chain.pem", world.folder / "key.pem"
    key = ec.generate_private_key(ec.SECP384R1())
    issued = authority.issue(key, [x509.DNSName("app.acme.example")])
    chain.write_bytes(issued.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    admin.call("issuer.create", {"issuer": "ca:corp", "certificates": authority.pem})
    admin.call("principal.create", {"principal": "batch", "kind": "service", "api_key": False})
    binding = {"principal": "batch", "issuer": "ca:corp", "claims": {"sub": "dns:app.acme.example"}}
    admin.call("principal.bind", binding)
    admin.call("grant.create", {"principal": "batch", "action": "key.read", "resource": "*"})
    files = {"certificate_file": str(chain), "certificate_key_file": str(key_file)}
    with client(world, "mtls", **files) as batch:
        # Text beyond ASCII in the payload: both sides digest the same bytes.
        assert batch.call("key.list", {"after": "\u00e9 \u2028"})["keys"] == []
    admin.call("principal.unbind", binding)
    with client(world, "mtls", **files) as batch, pytest.raises(IdentityError):
        batch.call("key.list", {})


def test_nobody_who_failed_to_sign_in_fills_the_store(world, tmp_path):
    key = tmp_path / "key"
    key.write_text("clk_0123456789abcdef_" + "A" * 43)

    def stored():
        with world.host.host.services.store.begin() as tx:
            from sqlalchemy import text

            return tx.execute(text("SELECT COUNT(*) FROM requests"), {}).scalar()

    before = stored()
    with client(world, "key", api_key_file=str(key)) as stranger:
        for op in ("key.list", "no.such.operation"):
            for _ in range(3):
                with pytest.raises(Exception):  # noqa: B017, PT011 (whatever it is, nothing is kept)
                    stranger.call(op, {})
    assert stored() == before
