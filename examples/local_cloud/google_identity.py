"""What gives a Google workload its credentials: metadata server, token endpoint, IAM, Secret Manager.

    with GoogleIdentity() as google:
        environment = google.environment          # the workload's, on a machine with a metadata server

Google's own libraries take it for the real ones. Sources:
https://cloud.google.com/compute/docs/instances/verifying-instance-identity,
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateIdToken,
https://developers.google.com/identity/protocols/oauth2/service-account,
https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from local_cloud.http_server import HttpServer, Request, Response, json_response

__all__ = ["GoogleIdentity"]

ISSUER: Final = "https://accounts.google.com"
FLAVOR: Final = {"Metadata-Flavor": "Google"}
KID: Final = "google-1"
TOKEN_SECONDS: Final = 3600
_SECRET: Final = re.compile(r"/v1/(projects/[^/]+(?:/locations/[^/]+)?/secrets/[^/]+)/versions/latest:access")
_IAM: Final = re.compile(r"/v1/projects/-/serviceAccounts/([^:]+):(generateIdToken|generateAccessToken)")


class GoogleIdentity:
    """Google, as far as it says who a workload is, on a loopback port.

    Attributes:
        account: The service account that the machine, or the runtime, was given; empty for none.
        subject: Its unique id.
        machine: What Google says of the machine in a full token; empty on Cloud Run, which says nothing.
        secrets: What Secret Manager keeps, by name.
        issued: Audiences of all ID tokens, in order.
        first_answers: Given in place of the next answers, each once.
    """

    issuer: Final = ISSUER

    def __init__(
        self,
        account: str = "loader@acme-prod.iam.gserviceaccount.com",
        subject: str = "110169484474386276334",
    ) -> None:
        self.account = account
        self.subject = subject
        self.machine: dict[str, Any] = {
            "instance_creation_timestamp": 1714000000,
            "instance_id": "152986662232938449",
            "instance_name": "loader-1",
            "project_id": "acme-prod",
            "project_number": 739419398126,
            "zone": "us-west1-a",
        }
        self.secrets: dict[str, str] = {}
        self.issued: list[str] = []
        self.first_answers: list[Response] = []
        self._key = RSAKey.generate_key(2048, {"kid": KID, "use": "sig", "alg": "RS256"})
        self._account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._access_token = f"ya29.{uuid.uuid4().hex}"
        self._server = HttpServer(self._answer)
        self.url = self._server.url

    @property
    def host(self) -> str:
        """Host and port, for `GCE_METADATA_HOST`."""
        return f"127.0.0.1:{self._server.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead a workload's libraries here."""
        return {
            "GCE_METADATA_HOST": self.host,
            "GCE_METADATA_IP": self.host,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": self.url,
        }

    @property
    def jwks(self) -> dict[str, Any]:
        """The issuer's public keys, as Google serves them under `/oauth2/v3/certs`."""
        return {"keys": [self._key.as_dict(private=False)]}

    def key_file(self, path: Path) -> Path:
        """Write a service account key, as `gcloud iam service-accounts keys create` does."""
        pem = self._account_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        document = {
            "type": "service_account",
            "project_id": "acme-prod",
            "private_key_id": "k1",
            "private_key": pem.decode(),
            "client_email": self.account,
            "client_id": self.subject,
            "token_uri": f"{self.url}/oauth/token",
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def impersonation_file(self, path: Path, source: Path) -> Path:
        """Write credentials that impersonate, as gcloud's `--impersonate-service-account`."""
        document = {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": (
                f"{self.url}/v1/projects/-/serviceAccounts/{self.account}:generateAccessToken"
            ),
            "source_credentials": json.loads(source.read_text(encoding="utf-8")),
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def token(self, audience: str, *, full: bool = True) -> str:
        """An ID token of the service account for an audience."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": self.subject,
            "azp": self.subject,
            "aud": audience,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
        }
        if full:
            claims |= {"email": self.account, "email_verified": True}
            if self.machine:
                claims["google"] = {"compute_engine": self.machine}
        self.issued.append(audience)
        return jwt.encode({"alg": "RS256", "kid": KID, "typ": "JWT"}, claims, self._key)

    def _answer(self, request: Request) -> Response:
        if self.first_answers:
            return self.first_answers.pop(0)
        if request.path == "/" or request.path.startswith("/computeMetadata/"):
            return self._metadata(request)
        if request.path == "/oauth/token":
            return self._grant(request)
        if request.headers.get("authorization") != f"Bearer {self._access_token}":
            return _refused(401, "UNAUTHENTICATED")
        if found := _IAM.fullmatch(request.path):
            return self._iam(found[2], request.json())
        return self._secret(request.path)

    def _metadata(self, request: Request) -> Response:
        if request.headers.get("metadata-flavor") != "Google":
            return Response(status=403, headers=FLAVOR)
        account = "/computeMetadata/v1/instance/service-accounts/default/"
        if request.path == "/":
            return Response(body=b"computeMetadata/\n", headers=FLAVOR)
        match request.path.removeprefix(account) if self.account else request.path:
            case "identity" if request.query.get("audience"):
                token = self.token(request.query["audience"], full=request.query.get("format") == "full")
                return Response(body=token.encode(), headers={**FLAVOR, "Content-Type": "text/html"})
            case "token":
                return json_response(
                    {"access_token": self._access_token, "expires_in": 3599, "token_type": "Bearer"},
                    headers=FLAVOR,
                )
            case "":
                found = {"aliases": ["default"], "email": self.account, "scopes": []}
                return json_response(found, headers=FLAVOR)
        return Response(status=404, headers=FLAVOR)

    def _grant(self, request: Request) -> Response:
        """The JWT bearer grant: an access token, or an ID token where an audience is named."""
        assertion = parse_qs(request.body.decode())["assertion"][0]
        try:
            public = RSAKey.import_key(self._account_key.public_key())  # type: ignore[arg-type]
            claims = jwt.decode(assertion, public).claims
        except JoseError:
            return json_response({"error": "invalid_grant"}, status=400)
        if "target_audience" in claims:
            return json_response({"id_token": self.token(claims["target_audience"])})
        granted = {"access_token": self._access_token, "expires_in": 3599, "token_type": "Bearer"}
        return json_response(granted)

    def _iam(self, method: str, body: dict[str, Any]) -> Response:
        if method == "generateIdToken":
            return json_response(
                {"token": self.token(body["audience"], full=body.get("includeEmail", False))}
            )
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + TOKEN_SECONDS))
        return json_response({"accessToken": self._access_token, "expireTime": expires})

    def _secret(self, path: str) -> Response:
        found = _SECRET.fullmatch(path)
        name = found[1] if found else ""
        if name not in self.secrets:
            return _refused(404, "NOT_FOUND")
        data = base64.b64encode(self.secrets[name].encode()).decode()
        return json_response({"name": f"{name}/versions/1", "payload": {"data": data}})


def _refused(status: int, code: str) -> Response:
    return json_response({"error": {"code": status, "message": code, "status": code}}, status=status)
