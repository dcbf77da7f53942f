"""A Lambda function signs in as its role: no credential is stored, and no other role gets in."""

from __future__ import annotations

import json

import pytest

from cloister_host.testing import embedded_host
from local_cloud.lambda_runtime import LambdaRuntime
from local_cloud.s3 import LocalS3
from local_cloud.web_identity import OutboundFederation

FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-adult", output=boolean())
def is_adult(age: Annotated[int, sealed("ages", context=["person"])]) -> bool:
    return age >= 18
"""

APP = """
from cloister_aws import confidential

@confidential("is-adult@prod")
def handler(event, context, *, enclave):
    return enclave(age=event["age"], context={"person": "ann"})
"""

ROLE = "arn:aws:iam::123456789012:role/forecast"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    with embedded_host(folder) as host, LocalS3() as cloud, OutboundFederation(ROLE) as federation:
        tenant = host.tenant("acme")
        tenant.admin.call("key.create", {"key": "ages", "purpose": "seal"})
        code = tmp_path_factory.mktemp("function")
        (code / "is_adult.py").write_text(FUNCTION)
        tenant.deploy(code)
        admin = tenant.admin
        admin.call("issuer.create", {"issuer": federation.issuer, "jwks": json.loads(federation.jwks)})
        admin.call("principal.create", {"principal": "forecast", "kind": "faas", "api_key": False})
        admin.call(
            "principal.bind", {"principal": "forecast", "issuer": federation.issuer, "claims": {"sub": ROLE}}
        )
        admin.call(
            "grant.create", {"principal": "forecast", "action": "invoke", "resource": "function/is-adult"}
        )
        app = tmp_path_factory.mktemp("app")
        (app / "app.py").write_text(APP)
        with tenant.client("owner", [("seal", "key/ages")]) as owner:
            age = owner.seal(30, key="ages", context={"person": "ann"})
        environment = {
            **cloud.environment,
            "CLOISTER_URL": host.url,
            "CLOISTER_TENANT": "acme",
            "CLOISTER_POLICY": str(host.policy),
            "CLOISTER_IDENTITY": "aws",
        }
        yield cloud, federation, app, environment, age
        admin.close()


def invoke(world):
    _, _, app, environment, age = world
    with LambdaRuntime("app.handler", directory=app, environment=environment) as function:
        return [function.invoke({"age": age}) for _ in range(2)]


def test_an_account_that_has_not_opted_in_is_told_so(world):
    first, _ = invoke(world)
    assert first.error.type == "IdentityError"
    assert "enable-outbound-web-identity-federation" in first.error.message


def test_the_role_is_who_the_host_knows_and_its_token_serves_more_than_once(world):
    cloud, federation, *_ = world
    cloud.session().client("iam", endpoint_url=cloud.url).enable_outbound_web_identity_federation()
    for result in invoke(world):
        assert result.error is None, result.error
        assert result.payload["value"] is True
    assert federation.issued == 1


def test_another_role_of_the_same_account_is_refused(world):
    cloud, federation, *_ = world
    cloud.session().client("iam", endpoint_url=cloud.url).enable_outbound_web_identity_federation()
    federation.role = "arn:aws:iam::123456789012:role/another"
    try:
        first, _ = invoke(world)
    finally:
        federation.role = ROLE
    assert first.error.type == "IdentityError"
    assert "another" not in first.error.message
