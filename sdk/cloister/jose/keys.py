"""JSON Web Keys (RFC 7517), parsed once: every other module of the package works on `Key`."""

from __future__ import annotations

import os
from hashlib import sha256, shake_256
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast, final, get_args

from cloister.errors import ConfigurationError
from cloister.jose._management import CEK_BYTES, Direct, Hpke, KeyManagement, KeyWrap
from cloister.jose.base64url import b64url_decode, b64url_encode
from cloister.jose.strict_json import dump_compact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

    from cloister.jose._signatures import Signature

__all__ = ["Alg", "Key", "as_key", "generate_key", "public_jwk", "thumbprint"]

Alg = Literal["A256KW", "dir", "HPKE-10-KE", "HPKE-7-KE", "EdDSA", "ES256", "ES384", "ML-DSA-65"]

_ALGS: Final[frozenset[str]] = frozenset(get_args(Alg))
_SIGNING: Final = frozenset({"EdDSA", "ES256", "ES384", "ML-DSA-65"})
_KTY: Final[dict[str, str]] = {
    "A256KW": "oct",
    "dir": "oct",
    "HPKE-10-KE": "AKP",
    "HPKE-7-KE": "EC",
    "EdDSA": "OKP",
    "ES256": "EC",
    "ES384": "EC",
    "ML-DSA-65": "AKP",
}
_CRV: Final = {"HPKE-7-KE": "P-256", "EdDSA": "Ed25519", "ES256": "P-256", "ES384": "P-384"}
_PRIVATE: Final = {"oct": "k", "AKP": "priv", "EC": "d", "OKP": "d"}
_KEY_OPS: Final = {
    "sig": frozenset({"sign", "verify"}),
    "enc": frozenset({"encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"}),
}
_MAX_KID_CHARS: Final = 256
_MLKEM_PUBLIC_BYTES: Final = 1184
_XWING_PUBLIC_BYTES: Final = _MLKEM_PUBLIC_BYTES + 32
_MLDSA_PUBLIC_BYTES: Final = 1952  # FIPS 204 table 2
_P = 2**255 - 19
# y coordinates of the eight points of small order on edwards25519: as a public key each verifies a
# signature that nobody made. The pair of order eight is from RFC 7748's curve, checked in the tests.
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER: Final = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


@final
class Key:
    """One key for one algorithm.

    A JWK without `alg` is refused: the same P-256 key could otherwise be read as a signature key and as
    an encryption key. Build with `Key.from_jwk` or `generate_key`.

    Attributes:
        kid: Key identifier, or None.
        alg: The one algorithm this key serves.
        is_private: Whether it can open or sign.
        operations: The parsed key material, for the modules of this package.
    """

    __slots__ = ("_members", "alg", "is_private", "kid", "operations")

    kid: str | None
    alg: Alg
    is_private: bool
    operations: KeyManagement | Signature

    def __init__(
        self, alg: Alg, kid: str | None, members: dict[str, str], operations: KeyManagement | Signature
    ) -> None:
        self.alg = alg
        self.kid = kid
        self.is_private = _PRIVATE[members["kty"]] in members
        self.operations = operations
        self._members = members

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> Key:
        """Validate and parse a JWK.

        Raises:
            ConfigurationError: It is not a key of this profile. The message names the member, not its value.
        """
        alg, kid = jwk.get("alg"), jwk.get("kid")
        if not isinstance(alg, str) or alg not in _ALGS:
            raise ConfigurationError("JWK: alg is missing or not supported", hint=f"one of {_names(_ALGS)}")
        if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_CHARS):
            raise ConfigurationError(f"JWK: kid must be a string of 1 to {_MAX_KID_CHARS} characters")
        kty = _KTY[alg]
        if jwk.get("kty") != kty:
            raise ConfigurationError(f"JWK: {alg} needs kty {kty}")
        if alg in _CRV and jwk.get("crv") != _CRV[alg]:
            raise ConfigurationError(f"JWK: {alg} needs crv {_CRV[alg]}")
        _check_use(jwk, "sig" if alg in _SIGNING else "enc")
        parse = {"oct": _parse_oct, "AKP": _parse_akp, "EC": _parse_ec, "OKP": _parse_okp}[kty]
        members, operations = parse(cast("Alg", alg), jwk)
        return cls(cast("Alg", alg), kid, members, operations)

    def public(self) -> Key:
        """Return the public half.

        Raises:
            ConfigurationError: A symmetric key has none.
        """
        if self._members["kty"] == "oct":
            raise ConfigurationError("a symmetric key has no public half")
        if not self.is_private:
            return self
        jwk = self.to_jwk()
        del jwk[_PRIVATE[self._members["kty"]]]
        return Key.from_jwk(jwk)

    def to_jwk(self) -> dict[str, str]:
        """Return the JWK in one canonical form, private members included if the key is private."""
        return {
            "kty": self._members["kty"],
            "alg": self.alg,
            **({} if self.kid is None else {"kid": self.kid}),
            **{name: value for name, value in self._members.items() if name != "kty"},
        }

    def __repr__(self) -> str:
        return f"Key(kid={self.kid!r}, alg={self.alg!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key cannot be pickled or copied")


def as_key(jwk: Mapping[str, Any] | Key) -> Key:
    """Return the key itself, or parse the JWK."""
    return jwk if isinstance(jwk, Key) else Key.from_jwk(jwk)


def generate_key(alg: Alg, *, kid: str | None = None) -> Key:
    """Generate a private (or symmetric) key from the operating system's randomness."""
    jwk: dict[str, Any] = {"kty": _KTY.get(alg, ""), "alg": alg, "kid": kid}
    kty = jwk["kty"]
    if kty == "oct":
        jwk["k"] = b64url_encode(os.urandom(CEK_BYTES))
    elif kty == "AKP":
        seed = os.urandom(32)
        public = _mldsa_public_bytes(seed) if alg == "ML-DSA-65" else _xwing_public_bytes(seed)
        jwk |= {"priv": b64url_encode(seed), "pub": b64url_encode(public)}
    elif kty == "OKP":
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as in _parse_okp

        seed = os.urandom(32)
        public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        jwk |= {"crv": "Ed25519", "x": b64url_encode(public), "d": b64url_encode(seed)}
    elif kty == "EC":
        jwk |= {"crv": _CRV[alg], **_generate_ec(alg)}
    return Key.from_jwk(jwk)


def public_jwk(jwk: Mapping[str, Any] | Key) -> dict[str, str]:
    """Return the JWK of the public half; `ConfigurationError` for a symmetric or invalid key."""
    return as_key(jwk).public().to_jwk()


def thumbprint(jwk: Mapping[str, Any] | Key) -> str:
    """Return the SHA-256 thumbprint of a public key, base64url (RFC 7638; AKP: RFC 9964 section 6).

    Raises:
        ConfigurationError: The key is invalid, or symmetric: its thumbprint would be a digest of the secret.
    """
    members = as_key(jwk).public().to_jwk()
    names = {"AKP": ("alg", "kty", "pub"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
    canonical = dump_compact({name: members[name] for name in names[members["kty"]]})
    return b64url_encode(sha256(canonical).digest())


# --- parsing, one function a key type ---------------------------------------------------------------


def _parse_oct(alg: Alg, jwk: Mapping[str, Any]) -> tuple[dict[str, str], KeyManagement]:
    key = _octets(jwk, "k", CEK_BYTES)
    if not any(key):
        raise ConfigurationError("JWK: k is all zero", hint="the key was never set")
    return {"kty": "oct", "k": jwk["k"]}, (Direct(key) if alg == "dir" else KeyWrap(key))


def _parse_okp(_alg: Alg, jwk: Mapping[str, Any]) -> tuple[dict[str, str], Signature]:
    from cryptography.hazmat.primitives.asymmetric import (  # noqa: PLC0415 - loaded with the first such key
        ed25519,
    )

    from cloister.jose._signatures import EdDsa  # noqa: PLC0415 - signatures load the elliptic curves

    x = _octets(jwk, "x", 32)
    if (int.from_bytes(x, "little") & (2**255 - 1)) % _P in _SMALL_ORDER:
        raise ConfigurationError("JWK: x is a point of small order")
    members = {"kty": "OKP", "crv": "Ed25519", "x": jwk["x"]}
    if "d" not in jwk:
        return members, EdDsa(ed25519.Ed25519PublicKey.from_public_bytes(x))
    private = ed25519.Ed25519PrivateKey.from_private_bytes(_octets(jwk, "d", 32))
    if private.public_key().public_bytes_raw() != x:
        raise _mismatch("x", "d")
    return {**members, "d": jwk["d"]}, EdDsa(private.public_key(), private)


def _parse_ec(alg: Alg, jwk: Mapping[str, Any]) -> tuple[dict[str, str], KeyManagement | Signature]:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - 5 ms, for EC keys alone

    curve: ec.EllipticCurve = ec.SECP384R1() if alg == "ES384" else ec.SECP256R1()
    size = curve.key_size // 8
    point = b"\x04" + _octets(jwk, "x", size) + _octets(jwk, "y", size)
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError:
        raise ConfigurationError(f"JWK: (x, y) is not a point on {_CRV[alg]}") from None
    members = {"kty": "EC", "crv": _CRV[alg], "x": jwk["x"], "y": jwk["y"]}
    private = None
    if "d" in jwk:
        scalar = int.from_bytes(_octets(jwk, "d", size), "big")
        try:
            private = ec.derive_private_key(scalar, curve)
        except ValueError:
            raise ConfigurationError("JWK: d is out of range") from None
        if private.public_key() != public:
            raise _mismatch("x and y", "d")
        members["d"] = jwk["d"]
    return members, _ec_operations(alg, public, private)


def _ec_operations(
    alg: Alg, public: EllipticCurvePublicKey, private: EllipticCurvePrivateKey | None
) -> KeyManagement | Signature:
    if alg == "HPKE-7-KE":
        return Hpke(alg, public, private)
    from cloister.jose._signatures import Ecdsa  # noqa: PLC0415 - not needed by encryption keys

    return Ecdsa(alg, public, private)


def _generate_ec(alg: Alg) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as in _parse_ec

    curve: ec.EllipticCurve = ec.SECP384R1() if alg == "ES384" else ec.SECP256R1()
    size = curve.key_size // 8
    # 64 bits more than the order make the bias of the reduction negligible (FIPS 186-5 A.2.1); the
    # randomness is the operating system's, which a restored snapshot does not repeat.
    scalar = int.from_bytes(os.urandom(size + 8), "big") % (curve.group_order - 1) + 1
    numbers = ec.derive_private_key(scalar, curve).public_key().public_numbers()
    values = {"x": numbers.x, "y": numbers.y, "d": scalar}
    return {name: b64url_encode(value.to_bytes(size, "big")) for name, value in values.items()}


def _parse_akp(alg: Alg, jwk: Mapping[str, Any]) -> tuple[dict[str, str], KeyManagement | Signature]:
    if alg == "ML-DSA-65":
        return _parse_mldsa(jwk)
    from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 - for post-quantum keys alone
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519  # noqa: PLC0415 - as above

    pub = _octets(jwk, "pub", _XWING_PUBLIC_BYTES)
    try:
        public = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(pub[:_MLKEM_PUBLIC_BYTES]),
            x25519.X25519PublicKey.from_public_bytes(pub[_MLKEM_PUBLIC_BYTES:]),
        )
    except ValueError:
        raise ConfigurationError("JWK: pub is not an MLKEM768-X25519 public key") from None
    members = {"kty": "AKP", "pub": jwk["pub"]}
    if "priv" not in jwk:
        return members, Hpke(alg, public)
    seed = _octets(jwk, "priv", 32)
    if _xwing_public_bytes(seed) != pub:
        raise _mismatch("pub", "priv")
    mlkem_key, x25519_key = _xwing_expand(seed)
    private = hpke.MLKEM768X25519PrivateKey(mlkem_key, x25519_key)
    return {**members, "priv": jwk["priv"]}, Hpke(alg, public, private)


def _parse_mldsa(jwk: Mapping[str, Any]) -> tuple[dict[str, str], Signature]:
    """Parse an ML-DSA-65 key; the private member is its 32-byte seed (RFC 9964 section 3)."""
    from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - as in _parse_akp

    from cloister.jose._signatures import MlDsa  # noqa: PLC0415 - as in _parse_okp

    pub = _octets(jwk, "pub", _MLDSA_PUBLIC_BYTES)
    members = {"kty": "AKP", "pub": jwk["pub"]}
    if "priv" not in jwk:
        return members, MlDsa(mldsa.MLDSA65PublicKey.from_public_bytes(pub))
    private = mldsa.MLDSA65PrivateKey.from_seed_bytes(_octets(jwk, "priv", 32))
    if private.public_key().public_bytes_raw() != pub:
        raise _mismatch("pub", "priv")
    return {**members, "priv": jwk["priv"]}, MlDsa(private.public_key(), private)


def _mldsa_public_bytes(seed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - as in _parse_akp

    raw: bytes = mldsa.MLDSA65PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    return raw


def _xwing_expand(seed: bytes) -> tuple[Any, Any]:
    """Expand the 32-byte decapsulation key (draft-connolly-cfrg-xwing-kem section 5.2)."""
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519  # noqa: PLC0415 - as in _parse_akp

    expanded = shake_256(seed).digest(96)
    return (
        mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def _xwing_public_bytes(seed: bytes) -> bytes:
    mlkem_key, x25519_key = _xwing_expand(seed)
    raw: bytes = mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()
    return raw


def _octets(jwk: Mapping[str, Any], name: str, size: int) -> bytes:
    text = jwk.get(name)
    try:
        if isinstance(text, str) and len(value := b64url_decode(text)) == size:
            return value
    except ValueError:
        pass
    raise ConfigurationError(f"JWK: {name} must be the base64url of {size} bytes")


def _check_use(jwk: Mapping[str, Any], use: str) -> None:
    """Refuse a key whose publisher meant it for something else (RFC 7517 sections 4.2 and 4.3)."""
    if jwk.get("use", use) != use:
        raise ConfigurationError(f"JWK: use must be {use} for this alg, or absent")
    ops = jwk.get("key_ops")
    if ops is None:
        return
    if not (isinstance(ops, list) and ops and all(isinstance(op, str) and op in _KEY_OPS[use] for op in ops)):
        raise ConfigurationError(f"JWK: key_ops does not fit use {use}")


def _mismatch(public: str, private: str) -> ConfigurationError:
    return ConfigurationError(f"JWK: {public} does not belong to {private}")


def _names(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
