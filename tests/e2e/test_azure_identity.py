"""An Azure function signs in with its managed identity: no credential is stored, and nobody else gets in.

Under Microsoft's runtime, against a real host that trusts Entra's issuer and pins the identity's claims.
"""

from __future__ import annotations

import json

import pytest
import requests

from cloister import Client
from cloister.errors import IdentityError
from cloister_host.testing import embedded_host
from local_cloud.azure_functions import AzureFunctions
from local_cloud.ca import LocalCA
from local_cloud.entra_identity import EntraIdentity
from support import require
from support.memory import memory_of

PLAINTEXT = "the-salary-is-91827364"

FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-high", output=boolean())
def is_high(salary: Annotated[str, sealed("salaries", context=["person"])]) -> bool:
    return "91827364" in salary
"""

APP = """
import azure.functions as func
from cloister_azure import AsyncEnclave, Enclave, confidential

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

@app.route(route="sync", methods=["POST"])
@confidential("is-high@prod", on_error="answer")
def sync(req: func.HttpRequest, *, enclave: Enclave) -> func.HttpResponse:
    body = req.get_json()
    return enclave(salary=body["salary"], context={"person": body["person"]})

@app.route(route="later", methods=["POST"])
@confidential("is-high@prod")
async def later(req: func.HttpRequest, *, enclave: AsyncEnclave) -> func.HttpResponse:
    body = req.get_json()
    return await enclave(salary=body["salary"], context={"person": body["person"]})

@app.queue_trigger(arg_name="msg", queue_name="in", connection="Q")
@app.queue_output(arg_name="$return", queue_name="out", connection="Q")
@confidential("is-high@prod")
def queued(msg: func.QueueMessage, *, enclave: Enclave) -> str:
    body = msg.get_json()
    return enclave(salary=body["salary"], context={"person": body["person"]})
"""


class World:
    def __init__(self, host, tenant, entra, ca, folder):
        self.host, self.tenant, self.entra, self.ca, self.folder = host, tenant, entra, ca, folder
        self.salary = ""

    def environment(self, **changes):
        return {
            **self.entra.environment,
            "CLOISTER_URL": self.host.url,
            "CLOISTER_TENANT": "acme",
            "CLOISTER_POLICY": str(self.host.policy),
            "CLOISTER_IDENTITY": "azure",
            "CLOISTER_TOKEN_AUDIENCE": self.entra.audience,
            **changes,
        }

    def running(self, **changes):
        return AzureFunctions(
            self.folder, ca=self.ca, environment=self.environment(**changes), python=require.azure_runtime()
        )

    def post(self, app, path, person="ann"):
        with requests.Session() as session:
            session.trust_env = False  # REQUESTS_CA_BUNDLE would replace the authority
            return session.post(
                f"{app.url}/api/{path}",
                json={"salary": str(self.salary), "person": person},
                verify=str(self.ca.pem_path),
                timeout=120,
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    require.azure_runtime()
    folder = tmp_path_factory.mktemp("host")
    with embedded_host(folder) as host, EntraIdentity() as entra, LocalCA() as ca:
        tenant = host.tenant("acme")
        with tenant.admin as admin:
            admin.call("key.create", {"key": "salaries", "purpose": "seal"})
            code = tmp_path_factory.mktemp("function")
            (code / "is_high.py").write_text(FUNCTION)
            tenant.deploy(code)
            audience = entra.audience.format(deployment=host.host.deployment)
            entra.applications.add(audience)
            admin.call(
                "issuer.create",
                {
                    "issuer": entra.issuer,
                    "jwks": entra.jwks,
                    "audience": audience,
                    "algorithms": ["RS256"],
                    "max_lifetime_seconds": 25 * 3600,
                },
            )
            admin.call("principal.create", {"principal": "salaries", "kind": "faas", "api_key": False})
            claims = {
                "sub": entra.object_id,
                "oid": entra.object_id,
                "appid": entra.client_id,
                "tid": entra.tenant,
                "xms_mirid": entra.resource_id,
            }
            binding = {"principal": "salaries", "issuer": entra.issuer, "claims": claims}
            admin.call("principal.bind", binding)
            grant = {"principal": "salaries", "action": "invoke", "resource": "function/is-high"}
            admin.call("grant.create", grant)
            with tenant.client("owner", [("seal", "key/salaries")]) as owner:
                app = tmp_path_factory.mktemp("app")
                (app / "function_app.py").write_text(APP)
                found = World(host, tenant, entra, ca, app)
                found.salary = owner.seal(PLAINTEXT, key="salaries", context={"person": "ann"})
            yield found


@pytest.fixture(scope="module")
def app(world):
    with world.running() as app:
        yield app


def test_the_identity_is_who_the_host_knows_and_its_token_serves_more_than_once(world, app):
    world.entra.issued.clear()
    for path in ("sync", "later", "sync"):
        answer = world.post(app, path)
        assert answer.status_code == 200, (answer.text, app.reports)
        assert answer.json()["value"] is True
    assert len(world.entra.issued) <= 1


def test_a_message_of_a_queue_is_answered_with_the_value_and_the_receipt(world, app):
    body = json.dumps({"salary": str(world.salary), "person": "ann"})
    returned = [app.trigger("queued", {"string": body}, {"Id": {"string": "m-1"}}) for _ in range(2)]
    assert json.loads(returned[0]["string"])["value"] is True
    # The second delivery is the first one again, down to its receipt.
    assert returned[0] == returned[1]


def test_no_plaintext_that_arrived_sealed_is_ever_in_the_memory_of_the_function(world, app):
    for path in ("sync", "later", "sync"):
        assert world.post(app, path).json()["value"] is True
    app.trigger(
        "queued",
        {"string": json.dumps({"salary": str(world.salary), "person": "ann"})},
        {"Id": {"string": "m-2"}},
    )
    memory = memory_of(app.pid)
    assert str(world.salary).encode() in memory, "the search finds what is there"
    assert PLAINTEXT.encode() not in memory


def test_a_value_of_somebody_else_opens_nowhere_and_tells_nothing(world, app):
    answer = world.post(app, "sync", person="bob")
    assert (answer.status_code, answer.json()["code"]) == (400, "open")
    assert world.post(app, "later", person="bob").status_code == 500
    told = answer.text + app.logs + "".join(report.message + report.stack for report in app.reports)
    assert PLAINTEXT not in told


@pytest.mark.parametrize(
    "claims",
    [
        {"xms_mirid": "/subscriptions/x/resourcegroups/cards/providers/Microsoft.Web/sites/another"},
        {"appid": "another"},
        {"oid": "another"},
        {"sub": "another"},
        {"tid": "another"},
        {"aud": "api://another"},
        {"iss": "https://sts.windows.net/another/"},
    ],
    ids=lambda claims: next(iter(claims)),
)
def test_a_token_that_differs_in_one_claim_is_refused(world, claims, tmp_path):
    audience = world.entra.audience.format(deployment=world.host.host.deployment)
    file = tmp_path / "token"
    settings = {"url": world.host.url, "tenant": "acme", "policy": str(world.host.policy)}
    with Client.from_env(**settings, identity="token", token_file=str(file)) as stranger:
        file.write_text(world.entra.token(audience))
        stranger.call("grant.mine", {})
        file.write_text(world.entra.token(audience, **claims))
        with pytest.raises(IdentityError):
            stranger.call("grant.mine", {})


def test_a_deployment_without_an_application_in_entra_is_told_so(world):
    with world.running(CLOISTER_TOKEN_AUDIENCE=f"api://{world.entra.tenant}/other/{{deployment}}") as app:
        assert world.post(app, "later").status_code == 500
        assert "register one" in app.reports[-1].message
