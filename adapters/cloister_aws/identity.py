"""Who a workload on AWS is: a token of its role from STS, or an API key kept in AWS.

A token says who signs in by the role itself: no credential is stored anywhere. The account has to allow
it once (`aws iam enable-outbound-web-identity-federation`).

Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cloister.envelope.process import on_drop
from cloister.errors import CloisterError, ConfigurationError, IdentityError, UnavailableError
from cloister.identity import audience
from cloister.secret import Secret
from cloister.workload import Clock, KeptKey, KeptTokens, TokenAndEnd
from cloister_aws.boto import boto_errors, error_code

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_sts import STSClient

    from cloister.config import Settings
    from cloister.protocol import RequestBinding

__all__ = ["AwsIdentity", "StoredApiKey", "stored_key", "workload"]

TOKEN_SECONDS: Final = 300
"""How long a token is asked for; STS gives 60 to 3600."""
_ALGORITHM: Final = "ES384"
_GLOBAL_ENDPOINT: Final = "https://sts.amazonaws.com"
_REFUSED: Final = (
    "AWS refused",
    "the role needs sts:GetWebIdentityToken, or secretsmanager:GetSecretValue or ssm:GetParameter",
)
_ABSENT: Final = ("there is no such secret in AWS", "check CLOISTER_API_KEY_SECRET")
_NOBODY: Final = ("there are no AWS credentials", "run it under a role, or set AWS_PROFILE")
_REFUSALS: Final = {
    "OutboundWebIdentityFederationDisabledException": (
        "the AWS account does not issue identity tokens",
        "an administrator runs once: aws iam enable-outbound-web-identity-federation",
    ),
    "AccessDenied": _REFUSED,
    "AccessDeniedException": _REFUSED,
    "ResourceNotFoundException": _ABSENT,
    "ParameterNotFound": _ABSENT,
    "NoCredentialsError": _NOBODY,
    "PartialCredentialsError": _NOBODY,
    "ProfileNotFound": _NOBODY,
}
_PASSING: Final = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
    }
)
"""Errors of AWS that a later call may not meet."""


class AwsIdentity:
    """The identity of the role that this code runs under.

    Args:
        session: Your own boto3 session; by default one from the environment.
        client: Your own STS client, instead of a session.
        clock: For tests.
    """

    def __init__(
        self,
        *,
        session: boto3.Session | None = None,
        client: STSClient | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._session = session
        self._given = client
        self._tokens = KeptTokens(self._fetch, clock=clock)
        self.forget()
        on_drop(self)

    def forget(self) -> None:
        """Drop the connection: called after a fork and around a snapshot, which drop the tokens too."""
        self._client: STSClient | None = self._given

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (a token is for any request)
        """A token for this deployment and no other, as credential members.

        Raises:
            IdentityError: AWS does not give this role a token.
            ConfigurationError: No region is set, or boto3 is too old.
            UnavailableError: STS did not answer.
        """
        return {"type": "oidc", "value": self._tokens.get(audience(deployment))}

    def _fetch(self, audience_: str) -> TokenAndEnd:
        try:
            self._client = self._client or self._connect()
            answer = self._client.get_web_identity_token(
                Audience=[audience_], SigningAlgorithm=_ALGORITHM, DurationSeconds=TOKEN_SECONDS
            )
        except boto_errors() as error:
            failure: CloisterError = _typed(error)
        except AttributeError:
            failure = ConfigurationError(
                "boto3 is too old for sts:GetWebIdentityToken", hint="ship boto3 >= 1.41 with the function"
            )
        else:
            expires: datetime = answer["Expiration"]
            return Secret(answer["WebIdentityToken"].encode()), expires.timestamp()
        raise failure

    def _connect(self) -> STSClient:
        import boto3  # noqa: PLC0415 (0.2 s, for those who use it)

        client = (self._session or boto3.Session()).client("sts", config=_patience())
        if client.meta.endpoint_url == _GLOBAL_ENDPOINT:
            raise ConfigurationError(
                "the global endpoint of STS issues no tokens",
                hint="set AWS_REGION, and AWS_STS_REGIONAL_ENDPOINTS=regional",
            )
        return client

    def __repr__(self) -> str:
        return "AwsIdentity(<hidden>)"


class StoredApiKey:
    """An API key kept in Secrets Manager, or in SSM as a SecureString.

    Args:
        arn: ARN of the secret or the parameter.
        session: Your own boto3 session; by default one from the environment.
        clock: For tests.

    Raises:
        ConfigurationError: The ARN is of neither.
    """

    def __init__(
        self, arn: str, *, session: boto3.Session | None = None, clock: Clock = time.monotonic
    ) -> None:
        parts = arn.split(":", 5)
        if len(parts) != 6 or parts[0] != "arn" or parts[2] not in {"secretsmanager", "ssm"} or not parts[3]:  # noqa: PLR2004 (members of an ARN)
            raise ConfigurationError(
                "the API key's ARN is of neither Secrets Manager nor SSM",
                hint="arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, "
                "or arn:aws:ssm:REGION:ACCOUNT:parameter/NAME",
            )
        self._arn = arn
        self._service, self._region = parts[2], parts[3]
        self._session = session
        self._key = KeptKey(self._read, where="the secret in AWS", clock=clock)

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:
        """The key as credential members.

        Raises:
            IdentityError: AWS does not let this role read the key, or there is none.
            ConfigurationError: What is stored is no API key.
            UnavailableError: AWS did not answer.
        """
        return self._key.get().credential(deployment=deployment, request=request)

    def _read(self) -> str:
        import boto3  # noqa: PLC0415 (0.2 s, for those who use it)

        session = self._session or boto3.Session()
        try:
            if self._service == "ssm":
                ssm = session.client("ssm", region_name=self._region, config=_patience())
                return ssm.get_parameter(Name=self._arn, WithDecryption=True)["Parameter"].get("Value", "")
            vault = session.client("secretsmanager", region_name=self._region, config=_patience())
            return vault.get_secret_value(SecretId=self._arn).get("SecretString", "")
        except boto_errors() as error:
            failure = _typed(error)
        raise failure

    def __repr__(self) -> str:
        return "StoredApiKey(<hidden>)"


def workload(settings: Settings) -> AwsIdentity:  # noqa: ARG001 (the cloud says it all)
    """The identity `aws` of the settings."""
    return AwsIdentity()


def stored_key(arn: str) -> StoredApiKey:
    """The identity `key` of the settings, where the key is kept in AWS."""
    return StoredApiKey(arn)


def _patience() -> Any:
    from botocore.config import Config  # noqa: PLC0415 (as boto3)

    return Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})


def _typed(error: Exception) -> CloisterError:
    """AWS's error without its message, which names accounts and resources."""
    code, kind = error_code(error), type(error).__name__
    known = _REFUSALS.get(code or kind)
    if known is not None:
        return IdentityError(known[0], hint=known[1])
    if kind == "NoRegionError":
        return ConfigurationError("no AWS region is set", hint="set AWS_REGION")
    if code and code not in _PASSING:
        return IdentityError(f"AWS gave no credential ({code})", hint="check the role and its permissions")
    return UnavailableError(f"AWS did not answer ({code or kind})")
