"""An aws-cdk-lib construct: what a Lambda function that calls confidential functions needs.

    cloister = Cloister(stack, "Cloister", url="https://cloister.example.com", tenant="acme",
                        policy=Path("app/policy.toml"))
    cloister.connect(function)

Copy this file into your app; it needs aws-cdk-lib and nothing of Cloister.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

__all__ = ["Cloister"]

TOKEN_SECONDS = 300


class Cloister(Construct):
    """One tenant of one enclave host, as the functions of a stack see it.

    Args:
        scope: The stack.
        id: The construct's id.
        url: Where the host answers.
        tenant: The tenant.
        policy: The appraisal policy; it has to be in the code of every function under `packed_policy`.
        packed_policy: Where the policy is in the code; by default at its top.
        api_key: A secret with an API key. Without one, functions sign in as the role they are.
        layer: A zip file that `cloister aws layer` has built.
        python: The Python version of that layer.

    Raises:
        ValueError: The policy names no deployment.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's name
        *,
        url: str,
        tenant: str,
        policy: Path,
        packed_policy: str = "policy.toml",
        api_key: secretsmanager.ISecret | None = None,
        layer: Path | None = None,
        python: lambda_.Runtime | None = None,
    ) -> None:
        super().__init__(scope, id)
        deployment = tomllib.loads(policy.read_text(encoding="utf-8")).get("deployment")
        if not isinstance(deployment, str):
            raise ValueError("the policy names no deployment, so nothing could be bound to one")  # noqa: TRY004 - a value in a file
        self._deployment = deployment
        self._api_key = api_key
        self._environment = {
            "CLOISTER_URL": url,
            "CLOISTER_TENANT": tenant,
            "CLOISTER_POLICY": packed_policy,
            "CLOISTER_IDENTITY": "aws" if api_key is None else "key",
        }
        if api_key is not None:
            self._environment["CLOISTER_API_KEY_SECRET"] = api_key.secret_arn
        self._layer = layer and lambda_.LayerVersion(
            self,
            "Layer",
            code=lambda_.Code.from_asset(str(layer)),
            compatible_runtimes=[python or lambda_.Runtime.PYTHON_3_12],
            description="Cloister SDK",
        )

    def connect(self, function: lambda_.Function) -> None:
        """Give a function the settings, the rights and the layer."""
        for name, value in self._environment.items():
            function.add_environment(name, value)
        if self._layer is not None:
            function.add_layers(self._layer)
        if self._api_key is not None:
            self._api_key.grant_read(function)
            return
        function.add_to_role_policy(
            iam.PolicyStatement(
                actions=["sts:GetWebIdentityToken"],
                resources=["*"],
                conditions={
                    "ForAllValues:StringEquals": {
                        "sts:IdentityTokenAudience": f"cloister:{self._deployment}"
                    },
                    "StringEquals": {"sts:SigningAlgorithm": "ES384"},
                    "NumericLessThanEquals": {"sts:DurationSeconds": TOKEN_SECONDS},
                },
            )
        )
