"""A whole `osls deploy` to moto: the gate asks a real host, and what was deployed runs under awslambdaric."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from cloister_host.testing import embedded_host
from local_cloud.lambda_runtime import LambdaRuntime
from local_cloud.s3 import LocalS3
from support import require
from support.serverless import Service

FUNCTION = """
from typing import Annotated
from cloister.function import enum, function, sealed

@function("salary-band", output=enum("low", "high"))
def salary_band(salary: Annotated[int, sealed("salaries", context=["person"])]) -> str:
    return "high" if salary > 50_000 else "low"
"""

# `cloister` as its users have it.
COMMAND = [sys.executable, "-c", "from cloister._cli import main; main()"]


@pytest.fixture(scope="module")
def cloud():
    with LocalS3() as cloud:
        cloud.client().create_bucket(Bucket="deployments")
        yield cloud


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant("acme")
        tenant.admin.call("key.create", {"key": "salaries", "purpose": "seal"})
        folder = tmp_path_factory.mktemp("function")
        (folder / "salary_band.py").write_text(FUNCTION)
        tenant.deploy(folder)
        tenant.principal("lambda", [("invoke", "function/salary-band")], kind="faas")
        tenant.principal(
            "deployer", [("function.manage", "*"), ("grant.manage", "*"), ("function.deploy", "*")]
        )
        yield tenant
        tenant.admin.close()


@pytest.fixture(scope="module")
def secret(cloud, tenant):
    vault = cloud.session().client("secretsmanager", endpoint_url=cloud.url)
    key = tenant.key_file("lambda").read_text()
    return vault.create_secret(Name="cloister/lambda", SecretString=key)["ARN"]


@pytest.fixture
def service(tmp_path, tenant):
    service = Service(tmp_path, require.framework("osls4"))
    shutil.copy(tenant.host.policy, tmp_path / "policy.toml")
    return service


def write(service, tenant, secret, **more):
    service.write(
        cloister={
            "url": tenant.host.url,
            "identity": "key",
            "apiKeySecret": secret,
            "principal": "lambda",
            "command": COMMAND,
            **more,
        }
    )


def deploy(service, cloud, tenant):
    as_deployer = {"CLOISTER_API_KEY_FILE": str(tenant.key_file("deployer"))}
    return service.run("deploy", environment={**cloud.environment, **as_deployer}, offline=False)


def stacks(cloud):
    formation = cloud.session().client("cloudformation", endpoint_url=cloud.url)
    return formation.list_stacks()["StackSummaries"]


def test_the_gate_stops_what_would_not_work_and_nothing_reaches_the_cloud(service, cloud, tenant, secret):
    write(service, tenant, secret)
    app = service.folder / "app.py"
    app.write_text(app.read_text().replace("salary-band@prod", "salary-band@next"))
    done = deploy(service, cloud, tenant)
    assert done.returncode != 0
    assert "names salary-band@next" in done.stdout + done.stderr
    assert not stacks(cloud)


def test_the_gate_stops_where_the_policy_means_another_host(service, cloud, tenant, secret):
    write(service, tenant, secret)
    policy = service.folder / "policy.toml"
    text = policy.read_text()
    deployment = text.split('deployment = "')[1][:43]
    policy.write_text(text.replace(deployment, "A" * 43))
    done = deploy(service, cloud, tenant)
    assert done.returncode != 0
    assert "the enclave host is refused" in done.stdout + done.stderr
    assert not stacks(cloud)


def test_a_function_whose_digest_has_no_grant_is_not_deployed_with(service, cloud, tenant, secret):
    (entry,) = tenant.admin.call("function.list", {})["functions"]
    need = {"principal": f"function:{entry['aliases']['prod']}", **entry["versions"][0]["needs"][0]}
    tenant.admin.call("grant.delete", need)
    try:
        write(service, tenant, secret)
        done = deploy(service, cloud, tenant)
    finally:
        tenant.admin.call("grant.create", need)
    assert done.returncode != 0
    assert "not granted use-in-function on key/salaries" in done.stdout + done.stderr
    assert not stacks(cloud)


def test_where_there_is_no_route_a_saved_statement_stands_for_the_host(service, cloud, tenant, secret):
    saved = service.folder / "host.json"
    done = subprocess.run(
        [*COMMAND, "attest", "--save", saved],
        env={**os.environ, "CLOISTER_URL": tenant.host.url, "CLOISTER_POLICY": str(tenant.host.policy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    write(service, tenant, secret, url="http://127.0.0.1:9", statement="host.json")
    text = (service.folder / "serverless.yml").read_text()
    (service.folder / "serverless.yml").write_text(text.replace("service: bands", "service: offline"))
    done = deploy(service, cloud, tenant)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "grants were not checked" in done.stdout + done.stderr

    saved.write_text(saved.read_text().replace('"v": 1', '"v": 2'))
    done = deploy(service, cloud, tenant)
    assert done.returncode != 0
    assert "cannot be attested" in done.stdout + done.stderr


def test_what_was_deployed_runs_on_the_real_runtime(service, cloud, tenant, secret, tmp_path):
    write(service, tenant, secret)
    done = deploy(service, cloud, tenant)
    assert done.returncode == 0, done.stdout + done.stderr

    client = cloud.session().client("lambda", endpoint_url=cloud.url)
    configuration = client.get_function(FunctionName="bands-dev-ask")["Configuration"]
    assert configuration["Environment"]["Variables"]["CLOISTER_API_KEY_SECRET"] == secret
    folder = tmp_path / "unpacked"
    s3 = cloud.client()
    (key,) = [
        item["Key"]
        for item in s3.list_objects_v2(Bucket="deployments")["Contents"]
        if item["Key"].endswith("bands.zip")
    ]
    body = s3.get_object(Bucket="deployments", Key=key)["Body"].read()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        archive.extractall(folder)

    with tenant.client("owner", [("seal", "key/salaries")]) as owner:
        salary = owner.seal(72_000, key="salaries", context={"person": "ann"})
    environment = {**configuration["Environment"]["Variables"], **cloud.environment}
    with LambdaRuntime(configuration["Handler"], directory=folder, environment=environment) as function:
        result = function.invoke({"salary": salary, "person": "ann"})
    assert result.error is None, result.error
    assert result.payload["value"] == "high", json.dumps(result.payload)
    assert set(result.payload) == {"value", "receipt"}


@pytest.mark.slow
def test_a_layer_is_built_for_the_runtime_and_given_to_the_function(service, cloud, tenant, secret):
    write(service, tenant, secret, layer="build")
    text = (service.folder / "serverless.yml").read_text()
    text = text.replace("service: bands", "service: layered").replace("python3.11", "python3.12")
    (service.folder / "serverless.yml").write_text(text)
    done = deploy(service, cloud, tenant)
    assert done.returncode == 0, done.stdout + done.stderr
    # moto drops a function's layers, so the template and what was published tell.
    resources = service.template["Resources"]
    assert resources["AskLambdaFunction"]["Properties"]["Layers"] == [{"Ref": "CloisterLambdaLayer"}]
    layers = cloud.session().client("lambda", endpoint_url=cloud.url).list_layers()["Layers"]
    assert len(layers) == 1
    with zipfile.ZipFile(service.folder / ".serverless" / "cloister-layer.zip") as archive:
        assert "python/cloister_aws/handlers.py" in archive.namelist()
