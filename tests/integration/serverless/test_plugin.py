"""The Serverless plugin: real services packaged by the real frameworks, with no network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cloister.config import SETTINGS
from support import require
from support.serverless import DEPLOYMENT, PLUGIN, Service

SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:key-AbCdEf"
PLAIN_ROLES = "serverless-iam-roles-per-function"
FRAMEWORKS = [
    "osls4",
    pytest.param("osls3", marks=pytest.mark.slow),
    pytest.param("serverless3", marks=pytest.mark.slow),
]


@pytest.fixture(params=FRAMEWORKS)
def service(request, tmp_path):
    return Service(tmp_path, require.framework(request.param))


@pytest.fixture
def fast(tmp_path):
    """The same for what does not differ between frameworks."""
    return Service(tmp_path, require.framework("osls4"))


def properties(template, name):
    return template["Resources"][f"{name}LambdaFunction"]["Properties"]


def variables(template, name):
    return properties(template, name).get("Environment", {}).get("Variables", {})


def statements(template, role="IamRoleLambdaExecution"):
    (policy,) = template["Resources"][role]["Properties"]["Policies"]
    return policy["PolicyDocument"]["Statement"]


def token_statements(template, **role):
    return [one for one in statements(template, **role) if "sts:GetWebIdentityToken" in one["Action"]]


def lint(service, *others_faults):
    ignored = ["--ignore-checks", *others_faults] if others_faults else []
    command = [Path(sys.executable).parent / "cfn-lint", service.template_path, *ignored]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def refused(service, *arguments, code, **options):
    done = service.run(*(arguments or ("package",)), **options)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert code in said or code is None, said
    return said


# --- unit tests of its own, by node's runner ---


def test_its_own_tests_pass():
    done = subprocess.run(
        [require.node(18), "--test", "test/"], cwd=PLUGIN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"^# pass (\d+)", done.stdout, re.MULTILINE)[1]) > 40


def test_it_depends_on_nothing_and_holds_no_cryptography():
    package = json.loads((PLUGIN / "package.json").read_text())
    assert "dependencies" not in package
    sources = [*PLUGIN.glob("*.js"), *PLUGIN.glob("lib/*.js")]
    required = {name for path in sources for name in re.findall(r"require\('([^'.]+)'\)", path.read_text())}
    assert required == {"node:child_process", "node:fs", "node:path"}


def test_it_sets_variables_that_the_sdk_reads_and_no_others():
    text = (PLUGIN / "lib" / "settings.js").read_text()
    assert set(re.findall(r"'(CLOISTER_\w+)'", text)) <= {setting.variable for setting in SETTINGS}


def test_it_is_of_the_version_of_the_sdk():
    version = re.search(
        r'^version = "(.+)"', (PLUGIN.parents[1] / "pyproject.toml").read_text(), re.MULTILINE
    )[1]
    assert json.loads((PLUGIN / "package.json").read_text())["version"] == version
    assert f"VERSION = '{version.rpartition('.')[0]}'" in (PLUGIN / "lib" / "cli.js").read_text()


# --- packages ---


def test_a_service_is_packaged_with_what_its_function_needs(service):
    service.write()
    template = service.package()
    assert variables(template, "Ask") == {
        "CLOISTER_URL": "https://cloister.example.com",
        "CLOISTER_TENANT": "acme",
        "CLOISTER_POLICY": "policy.toml",
        "CLOISTER_IDENTITY": "aws",
    }
    assert not variables(template, "Plain")
    assert service.packed() == {"app.py", "policy.toml"}
    (statement,) = token_statements(template)
    assert statement["Condition"]["ForAllValues:StringEquals"] == {
        "sts:IdentityTokenAudience": [f"cloister:{DEPLOYMENT}"]
    }
    assert template["Outputs"]["CloisterInvokes"]["Value"] == "ask=salary-band@prod"
    assert template["Outputs"]["CloisterDeployment"]["Value"] == DEPLOYMENT
    lint(service)


def test_each_function_has_a_role_of_its_own_beside_the_plugin_for_that(service):
    service.write(plugins=[PLAIN_ROLES])
    template = service.package()
    assert not token_statements(template)
    assert len(token_statements(template, role="AskIamRoleLambdaExecution")) == 1
    assert "PlainIamRoleLambdaExecution" not in template["Resources"]
    lint(service, "W3005")  # that plugin's own: a dependency on the role that is implied


def test_python_requirements_are_packed_beside_the_policy(service):
    wheel = service.folder / "mini-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mini.py", "ANSWER = 42\n")
        archive.writestr("mini-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mini\nVersion: 1.0\n")
        archive.writestr(
            "mini-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("mini-1.0.dist-info/RECORD", "mini.py,,\n")
    (service.folder / "requirements.txt").write_text("./mini-1.0-py3-none-any.whl\n")
    service.write(
        plugins=["serverless-python-requirements"],
        custom={
            "pythonRequirements": {
                "useDownloadCache": False,
                "useStaticCache": False,
                "pythonBin": sys.executable,
            }
        },
    )
    service.package()
    assert service.packed() >= {"app.py", "policy.toml", "mini.py"}


@pytest.mark.slow
def test_functions_packaged_one_by_one_have_the_policy_each(fast):
    fast.write(
        package={"individually": True, "patterns": ["!**"]},
        functions={
            "ask": {
                "handler": "app.ask",
                "package": {"patterns": ["app.py"]},
                "cloister": {"invoke": ["salary-band@prod"]},
            }
        },
    )
    fast.package()
    assert fast.packed("ask.zip") == {"app.py", "policy.toml"}


def test_a_stored_api_key_may_be_read_and_nothing_else(fast):
    fast.write(cloister={"identity": "key", "apiKeySecret": SECRET_ARN, "timeoutSeconds": 20})
    template = fast.package()
    assert not token_statements(template)
    (own,) = [one for one in statements(template) if "secretsmanager:GetSecretValue" in one["Action"]]
    assert own == {"Effect": "Allow", "Action": ["secretsmanager:GetSecretValue"], "Resource": SECRET_ARN}
    assert variables(template, "Ask")["CLOISTER_API_KEY_SECRET"] == SECRET_ARN
    assert variables(template, "Ask")["CLOISTER_TIMEOUT_SECONDS"] == "20"
    lint(fast)


def test_a_layer_and_a_network_are_given_to_confidential_functions_only(fast):
    layer = "arn:aws:lambda:us-east-1:123456789012:layer:cloister:1"
    vpc = {"securityGroupIds": ["sg-0123456789abcdef0"], "subnetIds": ["subnet-0123456789abcdef0"]}
    own = {"environment": {"CLOISTER_TENANT": "other"}, "cloister": {"invoke": ["salary-band@prod"]}}
    fast.write(
        cloister={"layer": layer, "vpc": vpc},
        functions={"ask": {"handler": "app.ask", **own}, "plain": {"handler": "app.plain"}},
    )
    template = fast.package()
    assert properties(template, "Ask")["Layers"] == [layer]
    assert properties(template, "Ask")["VpcConfig"]["SubnetIds"] == vpc["subnetIds"]
    assert variables(template, "Ask")["CLOISTER_TENANT"] == "other"  # what a function says itself goes before
    assert "Layers" not in properties(template, "Plain")
    assert "VpcConfig" not in properties(template, "Plain")
    lint(fast)


@pytest.mark.slow
def test_a_service_without_confidential_functions_stays_as_it_is(fast):
    fast.write(functions={"plain": {"handler": "app.plain"}})
    template = fast.package()
    assert not any(name.startswith("Cloister") for name in template["Outputs"])
    assert not token_statements(template)


# --- refusals ---


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("apiKey", "clk_x"),
        pytest.param("urll", "https://x", marks=pytest.mark.slow),
        pytest.param("url", "cloister.example.com", marks=pytest.mark.slow),
        pytest.param("gate", "off", marks=pytest.mark.slow),
        pytest.param("identity", "magic", marks=pytest.mark.slow),
        pytest.param("tenant", "Acme Inc", marks=pytest.mark.slow),
    ],
)
def test_a_setting_that_is_none_is_refused(setting, value, fast):
    fast.write(cloister={setting: value})
    said = refused(fast, code="custom.cloister")
    assert "clk_x" not in said


@pytest.mark.parametrize(
    "own",
    [
        {"open": ["salaries"]},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"invoke": ["salary-band"]}, marks=pytest.mark.slow),
        pytest.param({"seal": []}, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_a_function_that_asks_for_what_there_is_not_is_refused(own, service):
    service.write(functions={"ask": {"handler": "app.ask", "cloister": own}})
    refused(service, code="cloister")


def test_a_secret_in_the_environment_is_refused_and_not_shown(service):
    function = {
        "handler": "app.ask",
        "environment": {"PARTNER_API_KEY": "${env:PARTNER}"},
        "cloister": {"invoke": ["salary-band@prod"]},
    }
    service.write(functions={"ask": function})
    said = refused(service, code="PARTNER_API_KEY", environment={"PARTNER": "hunter2"})
    assert "hunter2" not in said


@pytest.mark.slow
def test_a_secret_for_all_functions_is_refused_too(fast):
    fast.write(provider="  environment: {DB_PASSWORD: hunter2}\n")
    assert "hunter2" not in refused(fast, code="DB_PASSWORD")


@pytest.mark.slow
def test_a_function_without_the_services_settings_is_refused(fast):
    fast.write()
    text = (fast.folder / "serverless.yml").read_text()
    (fast.folder / "serverless.yml").write_text(re.sub(r"^custom:.*\n", "", text, flags=re.MULTILINE))
    refused(fast, code="custom.cloister")


def test_a_policy_that_is_not_in_an_artifact_of_ones_own_is_refused(fast):
    with zipfile.ZipFile(fast.folder / "own.zip", "w") as archive:
        archive.writestr("app.py", "")
    fast.write(package={"artifact": "own.zip"})
    refused(fast, code="policy.toml")


@pytest.mark.slow
def test_a_policy_that_cannot_be_packed_is_refused(fast):
    fast.write(cloister={"policy": "../policy.toml"})
    refused(fast, code="outside the service")


# --- the command line ---

CLI = """
import json, os, sys
said = json.loads(os.environ["SAID"])
print(json.dumps({"asked": sys.argv[1:]}), file=open("asked.log", "a"))
if sys.argv[1] == "--version":
    print(said.get("version", "cloister 0.1.0"))
elif sys.argv[1] == "function":
    print(json.dumps({"name": said["function"], "digest": "d" * 64}))
else:
    print(json.dumps({"verdict": said["verdict"], "reason": "because"}))
    sys.exit(said["code"])
"""


def command(service, *arguments, **said):
    (service.folder / "cli.py").write_text(CLI)
    return service.run("cloister", *arguments, environment={"SAID": json.dumps(said)})


def asked(service):
    return [json.loads(line)["asked"] for line in (service.folder / "asked.log").read_text().splitlines()]


@pytest.mark.parametrize("name", [pytest.param("doctor", marks=pytest.mark.slow), "attest"])
def test_commands_run_the_command_line_and_show_its_verdict(name, service):
    service.write(cloister={"command": [sys.executable, "cli.py"]})
    done = command(service, name, verdict="accepted", code=0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])["verdict"] == "accepted"
    )
    done = command(service, name, verdict="refused", code=3)
    assert done.returncode != 0
    assert "because" in done.stdout + done.stderr
    assert asked(service)[:2] == [["--version"], [name, "--json"]]


def test_confidential_functions_are_deployed_with_the_service(fast):
    functions = {"salary-band": {"path": "bands", "alias": "prod", "grant": True}}
    fast.write(cloister={"command": [sys.executable, "cli.py"], "functions": functions})
    done = command(fast, "deploy", function="salary-band")
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked(fast)[1] == ["function", "deploy", "bands", "--alias", "prod", "--grant"]
    done = command(fast, "deploy", function="another")
    assert "another" in done.stdout + done.stderr
    assert done.returncode != 0


def test_a_command_line_of_another_version_is_refused(fast):
    fast.write(cloister={"command": [sys.executable, "cli.py"]})
    done = command(fast, "attest", verdict="accepted", code=0, version="cloister 9.0.0")
    assert done.returncode != 0
    assert "0.1" in done.stdout + done.stderr
