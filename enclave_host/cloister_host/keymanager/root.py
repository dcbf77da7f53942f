"""The root key, and every key that is derived from it (NIST SP 800-108 by way of HKDF, RFC 5869).

It has two parts. The *lasting* part is drawn once: from it come the deployment key and what authenticates
rows, so that a deployment stays the one its clients know. The other part has *generations*: each wraps the
KEKs of tenants, and is replaced when the root key is rotated.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Final, Literal, NoReturn, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister import jose
from cloister.errors import ConfigurationError
from cloister.protocol.deployment import deployment_of
from cloister.secret import Secret
from cloister_host.store import RowKeys
from cloister_host.store.generations import FIRST, Generations

__all__ = ["ROOT_BYTES", "Environment", "RootKey", "wrapping_key"]

Environment = Literal["hardware", "simulated", "test"]

ROOT_BYTES: Final = 32
KID_BYTES: Final = 12


@final
class RootKey:
    """The key everything at rest hangs on. Generated inside, never imported, never shown.

    It is never used itself: each use has a key of its own under a label of its own.

    Args:
        lasting: The part that stays.
        environment: Where it was generated.
        generations: The parts that wrap KEKs, by generation.

    Attributes:
        environment: Where it was generated, and the only place it may be used.
        generations: What wraps KEKs, derived from `generations`.
    """

    __slots__ = ("_lasting", "environment", "generations")

    def __init__(self, lasting: Secret, environment: Environment, generations: Mapping[int, Secret]) -> None:
        if {len(lasting), *map(len, generations.values())} != {ROOT_BYTES}:
            raise ConfigurationError("each part of a root key has 32 bytes")
        self._lasting: Final = lasting
        self.environment: Final = environment
        self.generations: Final = Generations(
            {number: wrapping_key(secret) for number, secret in generations.items()}
        )

    @classmethod
    def generate(cls, environment: Environment) -> RootKey:
        """Draw a new root key."""
        return cls(Secret(os.urandom(ROOT_BYTES)), environment, {FIRST: Secret(os.urandom(ROOT_BYTES))})

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
            state=Secret(self._derive("tenant-state")),
            generations=self.generations,
        )

    def api_key_hash_key(self) -> Secret:
        """What API keys are hashed under."""
        return Secret(self._derive("api-key"))

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
        return _derive(self._lasting, label)


def wrapping_key(generation: Secret) -> Secret:
    """What wraps KEKs in a generation."""
    return Secret(_derive(generation, "tenant-wrap"))


def _derive(secret: Secret, label: str) -> bytes:
    info = f"cloister.root.{label}.v1".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.reveal())
