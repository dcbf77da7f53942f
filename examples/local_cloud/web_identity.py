"""`sts:GetWebIdentityToken`, which moto does not know: its servers issue tokens once an account has opted in.

    with LocalS3() as cloud, OutboundFederation() as federation:
        cloud.session().client("iam", endpoint_url=cloud.url).enable_outbound_web_identity_federation()

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound.html
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse
from moto.sts.responses import TokenResponse

__all__ = ["OutboundFederation"]

KID = "EC384_0"


class OutboundWebIdentityFederationDisabledException(ServiceException):
    """The account has not opted in."""

    code = "OutboundWebIdentityFederationDisabledException"


class OutboundFederation:
    """Teaches every moto of this process the operations, as long as its context lasts.

    Attributes:
        issuer: The account's issuer URL.
        role: The role whose tokens are issued, whoever asks.
        function: The Lambda function that asks, for the claim AWS adds; empty for none.
        issued: How many tokens were issued.
    """

    def __init__(self, role: str = "arn:aws:iam::123456789012:role/forecast", function: str = "") -> None:
        self.issuer = f"https://{uuid.uuid4()}.tokens.sts.global.api.aws"
        self.role = role
        self.function = function
        self.issued = 0
        self._enabled: set[str] = set()
        private = ec.generate_private_key(ec.SECP384R1())
        self._key = ECKey.import_key(private, {"kid": KID, "use": "sig", "alg": "ES384"})  # type: ignore[arg-type]

    @property
    def jwks(self) -> str:
        """The issuer's public keys, as it serves them under `/.well-known/jwks.json`."""
        return json.dumps({"keys": [self._key.as_dict(private=False)]})

    def __enter__(self) -> Self:
        federation = self

        def enable(response: Any) -> ActionResult:
            federation._enabled.add(response.current_account)
            return ActionResult({"IssuerIdentifier": federation.issuer})

        def issue(response: Any) -> ActionResult:
            if response.current_account not in federation._enabled:
                raise OutboundWebIdentityFederationDisabledException("federation is not enabled")
            return federation._issue(response)

        IamResponse.enable_outbound_web_identity_federation = enable
        TokenResponse.get_web_identity_token = issue
        return self

    def __exit__(self, *_: object) -> None:
        del IamResponse.enable_outbound_web_identity_federation
        del TokenResponse.get_web_identity_token

    def _issue(self, response: Any) -> ActionResult:
        seconds = int(response._get_param("DurationSeconds") or 300)  # noqa: SLF001 - moto's way
        audience = response._get_param("Audience")  # noqa: SLF001 - as above
        now = int(time.time())
        account = {
            "aws_account": response.current_account,
            "source_region": response.region,
            "principal_id": self.role,
        }
        if self.function:
            account["lambda_source_function_arn"] = self.function
        claims = {
            "iss": self.issuer,
            "sub": self.role,
            "aud": audience if len(audience) > 1 else audience[0],
            "iat": now,
            "exp": now + seconds,
            "jti": str(uuid.uuid4()),
            "https://sts.amazonaws.com/": account,
        }
        self.issued += 1
        token = jwt.encode({"alg": "ES384", "kid": KID}, claims, self._key, algorithms=["ES384"])
        expires = datetime.fromtimestamp(now + seconds, UTC)
        return ActionResult({"WebIdentityToken": token, "Expiration": expires})


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found
