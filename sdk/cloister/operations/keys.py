"""Work with keys themselves: raw AEAD, MACs, signatures, rewrapping, import and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cloister import jose
from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.operations.driving import Flow, Operations, operation
from cloister.operations.flows import Context, Flows

if TYPE_CHECKING:
    from cloister.protocol.key_transfer import KeyName

__all__ = ["KeyOperations", "RewrappedValues", "WrappedKey"]

_SYMMETRIC: Final = {"seal": "A256KW", "mac": "HS256", "tokenize": "tokenize"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrappedValues:
    """Values under a key's current version.

    Attributes:
        kid: The version they are under now.
        values: In their order; None where a value did not open.
        moved: How many were under another version.
        kept: How many of these kept their data key, because no context was given.
    """

    kid: str
    values: list[str | None]
    moved: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A key version that left the host, wrapped to a public half."""

    name: KeyName
    wrapped: str

    def unwrap(self, private_jwk: Mapping[str, Any] | jose.Key) -> dict[str, Any]:
        """The JWK, with the private half of what it was wrapped to; raises `OpenError`."""
        from cloister.protocol.key_transfer import unwrap_key_material  # noqa: PLC0415 (few move keys)

        return unwrap_key_material(self.wrapped, private_jwk, self.name, "export")


class KeyOperations(Operations):
    """The part of a client that works with keys.

    Where `purpose` is given, it says what for: it is recorded, and grants can depend on it.
    """

    @operation
    def encrypt(self, data: bytes, *, key: str, aad: bytes = b"", purpose: str | None = None) -> Flow[str]:
        """Have the host encrypt bytes (right `encrypt`); the version is in the ciphertext.

        Args:
            data: What to encrypt. For values of columns `seal` is cheaper: it asks the host once.
            key: A key with purpose `seal`.
            aad: What the ciphertext belongs to; the same is needed to decrypt.
            purpose: What for.
        """
        ciphertexts = yield from _encrypt(self._flows, [data], key, [aad], purpose)
        return ciphertexts[0]

    @operation
    def encrypt_many(
        self,
        data: Sequence[bytes],
        *,
        key: str,
        aad: Sequence[bytes] | None = None,
        purpose: str | None = None,
    ) -> Flow[list[str]]:
        """Encrypt up to 10,000 items; see `encrypt`."""
        return (yield from _encrypt(self._flows, data, key, aad, purpose))

    @operation
    def decrypt(self, ciphertext: str, *, aad: bytes = b"", purpose: str | None = None) -> Flow[bytes]:
        """Have the host decrypt a ciphertext (right `decrypt`).

        Raises:
            OpenError: Wrong key, aad or ciphertext.
        """
        data = yield from _decrypt(self._flows, [ciphertext], [aad], purpose)
        return data[0]

    @operation
    def decrypt_many(
        self,
        ciphertexts: Sequence[str],
        *,
        aad: Sequence[bytes] | None = None,
        purpose: str | None = None,
    ) -> Flow[list[bytes]]:
        """Decrypt up to 10,000 ciphertexts, all or none; see `decrypt`."""
        return (yield from _decrypt(self._flows, ciphertexts, aad, purpose))

    @operation
    def mac(self, data: bytes, *, key: str, purpose: str | None = None) -> Flow[str]:
        """HMAC-SHA256 of bytes under a key with purpose `mac` (right `mac`)."""
        return (yield from _prove(self._flows, "key.mac", data, key, purpose))

    @operation
    def sign(self, data: bytes, *, key: str, purpose: str | None = None) -> Flow[str]:
        """Sign bytes under a key with purpose `sign` (right `sign`).

        `cloister.envelope.raw.verify_signature` verifies without the host, with the key's public half.
        """
        return (yield from _prove(self._flows, "key.sign", data, key, purpose))

    @operation
    def verify(self, data: bytes, proof: str, *, purpose: str | None = None) -> Flow[None]:
        """Have the host verify a MAC or signature (right `verify`).

        Raises:
            OpenError: It is not of this data, or its version may verify nothing any more.
        """
        payload = {"data": _encoded([data]), "proofs": [proof]}
        result = yield from self._flows.call("key.verify", payload, purpose=purpose)
        if result["errors"] or result["good"] != 1:
            raise OpenError("the MAC or signature does not verify")

    @operation
    def rewrap(
        self,
        values: Sequence[str],
        *,
        key: str,
        contexts: Sequence[Context | None] | None = None,
        aad: Sequence[bytes] | None = None,
        purpose: str | None = None,
    ) -> Flow[RewrappedValues]:
        """Move sealed values and ciphertexts to a key's current version, unseen (right `rewrap`).

        Args:
            values: At most 10,000.
            key: The key they are under.
            contexts: What sealed values are bound to. A value whose context is not given keeps its data key.
            aad: What ciphertexts are bound to.
            purpose: What for.
        """
        items: list[dict[str, Any]] = [{"value": str(value)} for value in values]
        for column in (contexts, aad):
            if column is not None and len(column) != len(items):
                raise ConfigurationError("there must be one context or aad a value")
        for item, context in zip(items, contexts or (), strict=False):
            if context is not None:
                item["context"] = dict(context)
        for item, bound in zip(items, aad or (), strict=False):
            item["aad"] = jose.b64url_encode(bound)
        result = yield from self._flows.call("key.rewrap", {"key": key, "items": items}, purpose=purpose)
        return RewrappedValues(
            kid=result["kid"], values=list(result["values"]), moved=result["moved"], kept=result["kept"]
        )

    @operation
    def random(self, size_bytes: int, *, purpose: str | None = None) -> Flow[bytes]:
        """Random bytes from inside the TEE (right `random`)."""
        result = yield from self._flows.call("key.random", {"size_bytes": size_bytes}, purpose=purpose)
        return jose.b64url_decode(result["data"])

    @operation
    def import_key(
        self, /, key: str, material: bytes | Mapping[str, Any], *, purpose: str, **rules: Any
    ) -> Flow[str]:
        """Bring a key: it is wrapped here to a key that the appraised host vouches for; returns its kid.

        Args:
            key: Its name; the next version of a key that exists.
            material: 32 bytes of a symmetric key, or a private JWK.
            purpose: The key's: `seal`, `seal-public`, `tokenize`, `mac` or `sign`.
            rules: As `key.create` takes them, such as `exportable=True`.
        """
        from cloister.protocol.key_transfer import KeyName, wrap_key_material  # noqa: PLC0415 (few move keys)

        jwk = material if isinstance(material, Mapping) else _symmetric(material, purpose)
        alg = jwk.get("alg")
        if alg is None:
            raise ConfigurationError("the JWK has no alg", hint="one key, one algorithm")
        prepared = yield from self._flows.call(
            "key.import_key", {"key": key, "purpose": purpose, "alg": alg, **rules}
        )
        # The key is wrapped to what the appraised deployment vouches for, as what it is meant to become.
        public = yield from self._flows.vouched_for(prepared["statement"])
        if public.purpose != "import" or public.kid != prepared["import_id"]:
            raise EvidenceError("the host vouched for another key than an import key")
        name = KeyName(tenant=self._flows.tenant, kid=prepared["kid"], purpose=purpose, alg=alg)
        wrapped = wrap_key_material(jwk, public.jwk, name, "import")
        result = yield from self._flows.call("key.import", {"import_id": public.kid, "wrapped": wrapped})
        return str(result["kid"])

    @operation
    def export_key(
        self, kid: str, to: Mapping[str, Any] | jose.Key, *, purpose: str | None = None
    ) -> Flow[WrappedKey]:
        """Take a key version along, wrapped to an HPKE public half (right `key.export`).

        Raises:
            ConfigurationError: The key was not created exportable.
        """
        from cloister.protocol.key_transfer import KeyName  # noqa: PLC0415 (few move keys)

        payload = {"kid": kid, "to": jose.public_jwk(to)}
        result = yield from self._flows.call("key.export", payload, purpose=purpose)
        name = KeyName(tenant=self._flows.tenant, kid=kid, purpose=result["purpose"], alg=result["alg"])
        return WrappedKey(name=name, wrapped=result["wrapped"])


def _encrypt(
    flows: Flows, data: Sequence[bytes], key: str, aad: Sequence[bytes] | None, purpose: str | None
) -> Flow[list[str]]:
    payload = {"key": key, "data": _encoded(data), **_aad(aad)}
    result = yield from flows.call("key.encrypt", payload, purpose=purpose)
    return list(result["ciphertexts"])


def _decrypt(
    flows: Flows, ciphertexts: Sequence[str], aad: Sequence[bytes] | None, purpose: str | None
) -> Flow[list[bytes]]:
    payload = {"ciphertexts": list(ciphertexts), **_aad(aad)}
    result = yield from flows.call("key.decrypt", payload, purpose=purpose)
    if result["errors"]:
        raise OpenError
    return [jose.b64url_decode(text) for text in result["data"]]


def _prove(flows: Flows, op: str, data: bytes, key: str, purpose: str | None) -> Flow[str]:
    result = yield from flows.call(op, {"key": key, "data": _encoded([data])}, purpose=purpose)
    return str(result["proofs"][0])


def _encoded(data: Sequence[bytes]) -> list[str]:
    return [jose.b64url_encode(item) for item in data]


def _aad(aad: Sequence[bytes] | None) -> dict[str, list[str]]:
    return {} if aad is None else {"aad": _encoded(aad)}


def _symmetric(octets: bytes, purpose: str) -> dict[str, str]:
    if purpose not in _SYMMETRIC:
        raise ConfigurationError(f"a key for {purpose} is brought as a private JWK")
    from cloister.protocol.key_transfer import symmetric_jwk  # noqa: PLC0415 (few move keys)

    return symmetric_jwk(octets, _SYMMETRIC[purpose])
