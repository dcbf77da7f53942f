"""What infra/aws holds is valid, and gives the least rights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloister_aws import identity
from support import require

FOLDER = Path(__file__).parents[3] / "infra" / "aws"
DEPLOYMENT = "D" * 43
CONDITION = {
    "StringEquals": {"sts:SigningAlgorithm": "ES384"},
    "NumericLessThanEquals": {"sts:DurationSeconds": identity.TOKEN_SECONDS},
}
APP = f"""
import sys
from pathlib import Path
import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_, aws_secretsmanager as secretsmanager
sys.path.insert(0, {str(FOLDER)!r})
from cloister_cdk import Cloister

app = cdk.App(outdir="out")
stack = cdk.Stack(app, "Forecast")
settings = dict(url="https://cloister.example.com", tenant="acme", policy=Path("policy.toml"))
def function(name):
    return lambda_.Function(
        stack,
        name,
        runtime=lambda_.Runtime.PYTHON_3_12,
        handler="index.handler",
        code=lambda_.Code.from_inline("def handler(event, context): ..."),
    )
Cloister(stack, "ByRole", **settings).connect(function("A"))
secret = secretsmanager.Secret(stack, "Key")
Cloister(stack, "ByKey", **settings, api_key=secret, layer=Path("layer.zip")).connect(function("B"))
function("C")
app.synth()
"""


def lint(*paths, ignore=()):
    ignored = ["--ignore-checks", *ignore] if ignore else []
    command = [Path(sys.executable).parent / "cfn-lint", "--template", *paths, *ignored]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_templates_are_valid():
    lint(FOLDER / "template.yaml", FOLDER / "identity.yaml")


@pytest.mark.parametrize("name", ["template.yaml", "identity.yaml"])
def test_a_template_allows_what_the_adapter_asks_for_and_no_more(name):
    text = (FOLDER / name).read_text()
    assert text.count("sts:GetWebIdentityToken") == 1
    assert f"sts:SigningAlgorithm: {identity._ALGORITHM}" in text
    assert f"sts:DurationSeconds: {identity.TOKEN_SECONDS}" in text
    assert 'sts:IdentityTokenAudience: !Sub "cloister:${CloisterDeployment}"' in text


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    require.node()
    require.module("aws_cdk", install="pip install --group cdk")
    folder = tmp_path_factory.mktemp("cdk")
    (folder / "policy.toml").write_text(f'version = 1\ndeployment = "{DEPLOYMENT}"\n')
    (folder / "layer.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    done = subprocess.run(
        [sys.executable, "-c", APP], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "out" / "Forecast.template.json"


@pytest.mark.slow
def test_the_construct_connects_functions_and_leaves_others_alone(template):
    resources = json.loads(template.read_text())["Resources"]

    def of(kind, start):
        return next(
            body["Properties"]
            for name, body in resources.items()
            if body["Type"] == kind and name.startswith(start)
        )

    assert of("AWS::Lambda::Function", "A")["Environment"]["Variables"] == {
        "CLOISTER_URL": "https://cloister.example.com",
        "CLOISTER_TENANT": "acme",
        "CLOISTER_POLICY": "policy.toml",
        "CLOISTER_IDENTITY": "aws",
    }
    (statement,) = of("AWS::IAM::Policy", "AServiceRole")["PolicyDocument"]["Statement"]
    audience = {"sts:IdentityTokenAudience": f"cloister:{DEPLOYMENT}"}
    assert statement["Condition"] == {"ForAllValues:StringEquals": audience, **CONDITION}
    by_key = of("AWS::Lambda::Function", "B")
    assert by_key["Environment"]["Variables"]["CLOISTER_IDENTITY"] == "key"
    assert len(by_key["Layers"]) == 1
    (reading,) = of("AWS::IAM::Policy", "BServiceRole")["PolicyDocument"]["Statement"]
    assert set(reading["Action"]) == {"secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"}
    assert "Environment" not in of("AWS::Lambda::Function", "C")


@pytest.mark.slow
def test_what_is_synthesised_is_valid(template):
    lint(template, ignore=("W3005",))  # CDK's own: a dependency on the role that is implied
