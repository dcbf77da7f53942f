"""The root key, and every key that is derived from it (NIST SP 800-108 by way of HKDF, RFC 5869)."""

from __future__ import annotations

import hashlib
import os
from typing import Final, Literal, NoReturn, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister import jose
from cloister.errors import ConfigurationError
from cloister.protocol.deployment import deployment_of
from cloister.secret import Secret
from cloister_host.store import RowKeys

__all__ = ["Environment", "RootKey"]

Environment = Literal["hardware", "simulated", "test"]

ROOT_BYTES: Final = 32
KID_BYTES: Final = 12


@final
class RootKey:
    """The key everything at rest hangs on. Generated inside, never imported, never shown.

    It is never used itself: each use has a key of its own under a label of its own.

    Attributes:
        environment: Where it was generated, and the only place it may be used.
    """

    __slots__ = ("_secret", "environment")

    def __init__(self, secret: Secret, environment: Environment) -> None:
        if len(secret) != ROOT_BYTES:
            raise ConfigurationError("a root key has 32 bytes")
        self._secret: Final = secret
        self.environment: Final = environment

    @classmethod
    def generate(cls, environment: Environment) -> RootKey:
        """Draw a new root key."""
        return cls(Secret(os.urandom(ROOT_BYTES)), environment)

    @property
    def deployment_key(self) -> jose.Key:
        """Ed25519: signs keysets and the statements of public keys."""
        return jose.Key.from_jwk(self._ed25519("deployment"))

    @property
    def log_key(self) -> jose.Key:
        """Ed25519: signs the heads of the audit log. Its `kid` tells it apart from any other's."""
        jwk = self._ed25519("log")
        name = jose.b64url_encode(hashlib.sha256(jwk["x"].encode()).digest()[:KID_BYTES])
        return jose.Key.from_jwk({**jwk, "kid": f"log-{name}"})

    @property
    def deployment(self) -> str:
        """Base64url SHA-256 of the deployment key's public half (PROTOCOL 4)."""
        return deployment_of(self.deployment_key)

    def row_keys(self) -> RowKeys:
        """What the store authenticates rows and wraps tenant KEKs with."""
        return RowKeys(
            deployment=self.deployment,
            mac=Secret(self._derive("row-mac")),
            tenant_wrap=Secret(self._derive("tenant-wrap")),
            state=Secret(self._derive("tenant-state")),
        )

    def api_key_hash_key(self) -> Secret:
        """What API keys are hashed under."""
        return Secret(self._derive("api-key"))

    def reveal(self) -> bytes:
        """The bytes an unseal provider is given to wrap. The name is meant to stand out in a review."""
        return self._secret.reveal()

    def __repr__(self) -> str:
        return f"RootKey(environment={self.environment!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RootKey cannot be pickled or copied")

    def _ed25519(self, label: str) -> dict[str, str]:
        seed = self._derive(label)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "x": jose.b64url_encode(public),
            "d": jose.b64url_encode(seed),
        }

    def _derive(self, label: str) -> bytes:
        info = f"cloister.root.{label}.v1".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret.reveal())
