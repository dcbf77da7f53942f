"""An OIDC issuer for tests, by another implementation than the one that verifies."""

from __future__ import annotations

import json
from typing import Any

from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

__all__ = ["TokenIssuer", "generate"]

_KINDS: dict[str, dict[str, Any]] = {
    "RS256": {"kty": "RSA", "size": 2048},
    "PS256": {"kty": "RSA", "size": 2048},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}


def generate(algorithm: str, kid: str = "k1", **members: Any) -> JWK:
    return JWK.generate(kid=kid, **{**_KINDS[algorithm], **members})


class TokenIssuer:
    """Signs what it is told to; `keys` are the ones it publishes."""

    def __init__(self, url: str = "https://issuer.example", algorithm: str = "ES256") -> None:
        self.url = url
        self.algorithm = algorithm
        self.keys = [generate(algorithm)]

    def rotate(self, kid: str) -> None:
        self.keys = [generate(self.algorithm, kid)]

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{**key.export_public(as_dict=True), "use": "sig"} for key in self.keys]}

    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}

    def token(
        self,
        claims: dict[str, Any],
        *,
        header: dict[str, Any] | None = None,
        key: JWK | None = None,
    ) -> str:
        signing = key or self.keys[0]
        protected = {"alg": self.algorithm, "kid": signing["kid"], "typ": "JWT", **(header or {})}
        protected = {name: value for name, value in protected.items() if value is not None}
        jws = JWS(json.dumps({"iss": self.url, **claims}))
        jws.allowed_algs = [*_KINDS, "HS256"]
        jws.add_signature(signing, protected["alg"], json.dumps(protected))
        return str(jws.serialize(compact=True))
