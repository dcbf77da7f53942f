"""Entra and the endpoints of managed identities on this machine, as far as they say who a workload is.

    with EntraIdentity() as entra:
        os.environ.update(entra.environment)          # as Functions and App Service do
        entra.applications.add("api://.../deployment")

Tokens look as Entra's of version 1.0 do, which is what an application gets that asks for no other: `aud` is
the Application ID URI that was asked for, and `iat` lies five minutes back.

Source: https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Final, Self

from joserfc import jwt
from joserfc.jwk import RSAKey

from local_cloud.http_server import HttpServer, Request, Response, json_response

__all__ = ["EntraIdentity"]

KID: Final = "entra-1"
TOKEN_SECONDS: Final = 24 * 3600
BACKDATED_SECONDS: Final = 300
VAULT: Final = "https://vault.azure.net"


class EntraIdentity:
    """Managed identities, Entra as their issuer and a Key Vault, on a loopback port.

    Attributes:
        tenant: Id of the Entra tenant.
        applications: Application ID URIs that are registered in it.
        resource_id: Which Azure resource has the system-assigned identity: the claim `xms_mirid`.
        object_id: Its object id: `oid` and `sub`.
        user_assigned: Further identities by client id: their object ids.
        secrets: What the Key Vault keeps, by name.
        issued: Audiences of all tokens, in order.
        first_answers: Given in place of the next answers, each once.
    """

    def __init__(self) -> None:
        self.tenant = str(uuid.uuid4())
        self.applications: set[str] = {VAULT}
        self.resource_id = (
            "/subscriptions/5b4b650e-28b9-4790-b3ab-ddbd88d727c4/resourcegroups/cards"
            "/providers/Microsoft.Web/sites/forecast"
        )
        self.object_id = str(uuid.uuid4())
        self.client_id = str(uuid.uuid4())
        self.user_assigned: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.issued: list[str] = []
        self.first_answers: list[Response] = []
        self._header = uuid.uuid4().hex
        self._key = RSAKey.generate_key(2048, {"kid": KID, "use": "sig", "alg": "RS256"})
        self._server = HttpServer(self._answer)
        self.url = self._server.url

    @property
    def issuer(self) -> str:
        """The issuer of its tokens."""
        return f"https://sts.windows.net/{self.tenant}/"

    @property
    def audience(self) -> str:
        """A template of Application ID URIs, for `CLOISTER_TOKEN_AUDIENCE`."""
        return f"api://{self.tenant}/{{deployment}}"

    @property
    def jwks(self) -> dict[str, Any]:
        """The issuer's public keys."""
        return {"keys": [self._key.as_dict(private=False)]}

    @property
    def environment(self) -> dict[str, str]:
        """What Functions and App Service set."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": self._header}

    @property
    def machine(self) -> dict[str, str]:
        """What leads to the instance metadata service here instead of at its fixed address."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def token(self, audience: str, *, client_id: str | None = None, **claims: Any) -> str:
        """A token of one of the identities for an audience."""
        issued = int(time.time()) - BACKDATED_SECONDS
        object_id = self.user_assigned[client_id] if client_id else self.object_id
        resource = self.resource_id
        if client_id:
            resource = (
                f"{resource.partition('/providers/')[0]}/providers/Microsoft.ManagedIdentity/{client_id}"
            )
        full = {
            "aud": audience,
            "iss": self.issuer,
            "iat": issued,
            "nbf": issued,
            "exp": issued + BACKDATED_SECONDS + TOKEN_SECONDS,
            "appid": client_id or self.client_id,
            "appidacr": "2",
            "idp": self.issuer,
            "idtyp": "app",
            "oid": object_id,
            "sub": object_id,
            "tid": self.tenant,
            "uti": uuid.uuid4().hex,
            "ver": "1.0",
            "xms_mirid": resource,
            **claims,
        }
        self.issued.append(audience)
        header = {"alg": "RS256", "typ": "JWT", "kid": KID, "x5t": KID}
        return jwt.encode(header, full, self._key)

    def _answer(self, request: Request) -> Response:
        if self.first_answers:
            return self.first_answers.pop(0)
        if request.path.startswith("/secrets/"):
            return self._secret(request)
        known = {
            "/msi/token": ("x-identity-header", self._header, "2019-08-01"),
            "/metadata/identity/oauth2/token": ("metadata", "true", "2018-02-01"),
        }
        if request.path not in known:
            return Response(status=404)
        header, value, version = known[request.path]
        if request.headers.get(header) != value:
            return json_response({"statusCode": 401, "message": "Unauthorized"}, status=401)
        return self._issue(request, version=version)

    def _issue(self, request: Request, *, version: str) -> Response:
        resource, client_id = request.query.get("resource", ""), request.query.get("client_id")
        if request.query.get("api-version") != version:
            return json_response({"error": "invalid_request", "message": "api-version"}, status=400)
        if (client_id and client_id not in self.user_assigned) or not (client_id or self.object_id):
            return json_response(
                {"error": "invalid_request", "error_description": "Identity not found"}, status=400
            )
        if resource not in self.applications:
            text = f"AADSTS500011: The resource principal named {resource} was not found in the tenant"
            return json_response({"error": "invalid_resource", "error_description": text}, status=400)
        token = self.token(resource, client_id=client_id)
        return json_response(
            {
                "access_token": token,
                "expires_on": str(int(time.time()) + TOKEN_SECONDS),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": client_id or self.client_id,
            }
        )

    def _secret(self, request: Request) -> Response:
        name = request.path.split("/")[2]
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            audience = jwt.decode(token, self._key).claims["aud"] if token else ""
        except ValueError:
            audience = ""
        if audience != VAULT:
            return json_response({"error": {"code": "Unauthorized"}}, status=401)
        if name not in self.secrets:
            return json_response({"error": {"code": "SecretNotFound"}}, status=404)
        return json_response({"value": self.secrets[name], "attributes": {"enabled": True}})
