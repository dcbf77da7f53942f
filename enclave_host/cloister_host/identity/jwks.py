"""Public keys of a token issuer: a JWK set, read strictly (RFC 7517, RFC 8725).

Whoever can answer for the issuer writes these bytes. So they are bounded; a key that is weak, private,
ambiguous or of another kind is not there; and each key is good for exactly the algorithms of its kind.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from cloister.errors import ConfigurationError
from cloister.jose import b64url_decode, strict_json

__all__ = ["ALGORITHMS", "MAX_JWKS_BYTES", "Algorithm", "IssuerKey", "KeySet"]

Algorithm = Literal["RS256", "PS256", "ES256", "ES384", "EdDSA"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

MAX_JWKS_BYTES: Final = 128 * 1024
MAX_KEYS: Final = 64
MAX_KID_CHARS: Final = 256
RSA_BITS: Final = range(2048, 8193)
MIN_RSA_EXPONENT: Final = 65537

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_TYPES: Final[Mapping[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One public key, and the algorithms it may verify."""

    algorithms: tuple[Algorithm, ...]
    _key: Any

    @classmethod
    def of(cls, public: Any) -> IssuerKey:
        """The key in an object of `cryptography`, good for every algorithm of its kind.

        Raises:
            ValueError: It is weak, or of a kind that is not accepted.
        """
        match public:
            case RSAPublicKey() if (
                public.key_size in RSA_BITS and public.public_numbers().e >= MIN_RSA_EXPONENT
            ):
                return cls(("RS256", "PS256"), RSAKey(public, public))
            case EllipticCurvePublicKey(curve=SECP256R1()):
                return cls(("ES256",), ECKey(public, public))
            case EllipticCurvePublicKey(curve=SECP384R1()):
                return cls(("ES384",), ECKey(public, public))
            case Ed25519PublicKey():
                return cls(("EdDSA",), OKPKey(public, public))
            case _:
                raise ValueError("not an accepted key")

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether the signature over `signed` is this key's, by an algorithm it is good for."""
        if algorithm not in self.algorithms:
            return False
        try:
            return bool(JWSRegistry.algorithms[algorithm].verify(signed, signature, self._key))
        except (JoseError, ValueError, TypeError):
            return False


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer by `kid`, and the digest of the document they came in."""

    keys: Mapping[str, IssuerKey]
    digest: str

    @classmethod
    def parse(cls, raw: bytes) -> KeySet:
        """Read a JWK set.

        Raises:
            ConfigurationError: It is not one, too large, or holds no usable key.
        """
        if len(raw) > MAX_JWKS_BYTES:
            raise ConfigurationError(
                "the issuer's key set is too large", hint=f"at most {MAX_JWKS_BYTES} bytes"
            )
        try:
            entries = strict_json.load_object(raw).get("keys")
        except ValueError:
            entries = None
        if not isinstance(entries, list) or len(entries) > MAX_KEYS:
            raise ConfigurationError("this is not a JWK set", hint=f'{{"keys": [...]}}, at most {MAX_KEYS}')
        named = [entry for entry in entries if isinstance(entry, dict) and _kid(entry)]
        # A name that two keys have names neither: which one signed would be the sender's choice.
        counts = Counter(entry["kid"] for entry in named)
        keys = {
            entry["kid"]: key
            for entry in named
            if counts[entry["kid"]] == 1 and (key := _usable(entry)) is not None
        }
        if not keys:
            raise ConfigurationError(
                "the key set has no usable key",
                hint="public RSA (2048 bits or more), P-256, P-384 or Ed25519 keys, each with its own kid",
            )
        return cls(keys, hashlib.sha256(raw).hexdigest())


def _kid(entry: Mapping[str, Any]) -> bool:
    kid = entry.get("kid")
    return isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS


def _usable(entry: Mapping[str, Any]) -> IssuerKey | None:
    kind, operations = entry.get("kty"), entry.get("key_ops", ["verify"])
    if (
        not (isinstance(kind, str) and kind in _TYPES)
        or _PRIVATE & entry.keys()
        or entry.get("use", "sig") != "sig"
        or not (isinstance(operations, list) and "verify" in operations)
    ):
        return None
    members = {name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}
    try:
        # Looked at here, so that the library has nothing to warn of.
        if kind == "RSA" and int.from_bytes(b64url_decode(entry["n"]), "big").bit_length() not in RSA_BITS:
            return None
        key = IssuerKey.of(_TYPES[kind].import_key(members).public_key)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    # A key that says what it is for is good for nothing else.
    named = tuple(name for name in key.algorithms if name == entry.get("alg", name))
    return replace(key, algorithms=named) if named else None
