"""What clients do with keys: raw AEAD, MACs, signatures, rewrapping, import and export.

The flows are written once; `KeyOperations` and `AsyncKeyOperations` are the two ways to drive them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cloister import jose
from cloister._flows import Context, Flow, Flows, T
from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.protocol.key_transfer import KeyName, symmetric_jwk, unwrap_key_material, wrap_key_material

__all__ = ["AsyncKeyOperations", "KeyOperations", "RewrappedValues", "WrappedKey"]

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
        return unwrap_key_material(self.wrapped, private_jwk, self.name, "export")


def _encrypt(flows: Flows, data: Sequence[bytes], key: str, aad: Sequence[bytes] | None) -> Flow[list[str]]:
    payload = {"key": key, "data": _encoded(data), **_aad(aad)}
    result = yield from flows.call("key.encrypt", payload)
    return list(result["ciphertexts"])


def _decrypt(flows: Flows, ciphertexts: Sequence[str], aad: Sequence[bytes] | None) -> Flow[list[bytes]]:
    result = yield from flows.call("key.decrypt", {"ciphertexts": list(ciphertexts), **_aad(aad)})
    if result["errors"]:
        raise OpenError
    return [jose.b64url_decode(text) for text in result["data"]]


def _prove(flows: Flows, op: str, data: bytes, key: str) -> Flow[str]:
    result = yield from flows.call(op, {"key": key, "data": _encoded([data])})
    return str(result["proofs"][0])


def _verify(flows: Flows, data: bytes, proof: str) -> Flow[None]:
    result = yield from flows.call("key.verify", {"data": _encoded([data]), "proofs": [proof]})
    if result["errors"] or result["good"] != 1:
        raise OpenError("the MAC or signature does not verify")


def _rewrap(
    flows: Flows,
    values: Sequence[str],
    key: str,
    contexts: Sequence[Context | None] | None,
    aad: Sequence[bytes] | None,
) -> Flow[RewrappedValues]:
    items: list[dict[str, Any]] = [{"value": str(value)} for value in values]
    for column in (contexts, aad):
        if column is not None and len(column) != len(items):
            raise ConfigurationError("there must be one context or aad a value")
    for item, context in zip(items, contexts or (), strict=False):
        if context is not None:
            item["context"] = dict(context)
    for item, bound in zip(items, aad or (), strict=False):
        item["aad"] = jose.b64url_encode(bound)
    result = yield from flows.call("key.rewrap", {"key": key, "items": items})
    return RewrappedValues(
        kid=result["kid"], values=list(result["values"]), moved=result["moved"], kept=result["kept"]
    )


def _random(flows: Flows, size_bytes: int) -> Flow[bytes]:
    result = yield from flows.call("key.random", {"size_bytes": size_bytes})
    return jose.b64url_decode(result["data"])


def _import(
    flows: Flows, key: str, material: bytes | Mapping[str, Any], purpose: str, rules: Mapping[str, Any]
) -> Flow[str]:
    jwk = material if isinstance(material, Mapping) else _symmetric(material, purpose)
    alg = jwk.get("alg")
    if alg is None:
        raise ConfigurationError("the JWK has no alg", hint="one key, one algorithm")
    prepared = yield from flows.call("key.import_key", {"key": key, "purpose": purpose, "alg": alg, **rules})
    # The key is wrapped to what the appraised deployment vouches for, as what it is meant to become.
    public = yield from flows.vouched_for(prepared["statement"])
    if public.purpose != "import" or public.kid != prepared["import_id"]:
        raise EvidenceError("the host vouched for another key than an import key")
    name = KeyName(tenant=flows.tenant, kid=prepared["kid"], purpose=purpose, alg=alg)
    wrapped = wrap_key_material(jwk, public.jwk, name, "import")
    result = yield from flows.call("key.import", {"import_id": public.kid, "wrapped": wrapped})
    return str(result["kid"])


def _export(flows: Flows, kid: str, to: Mapping[str, Any] | jose.Key) -> Flow[WrappedKey]:
    result = yield from flows.call("key.export", {"kid": kid, "to": jose.public_jwk(to)})
    name = KeyName(tenant=flows.tenant, kid=kid, purpose=result["purpose"], alg=result["alg"])
    return WrappedKey(name=name, wrapped=result["wrapped"])


class KeyOperations:
    """The part of `Client` that works with keys."""

    _flows: Flows

    @abstractmethod
    def _run(self, flow: Flow[T]) -> T: ...

    def encrypt(self, data: bytes, *, key: str, aad: bytes = b"") -> str:
        """Have the host encrypt bytes (right `encrypt`); the version is in the ciphertext.

        Args:
            data: What to encrypt. For values of columns `seal` is cheaper: it asks the host once.
            key: A key with purpose `seal`.
            aad: What the ciphertext belongs to; the same is needed to decrypt.
        """
        return self.encrypt_many([data], key=key, aad=[aad])[0]

    def encrypt_many(
        self, data: Sequence[bytes], *, key: str, aad: Sequence[bytes] | None = None
    ) -> list[str]:
        """Encrypt up to 10,000 items; see `encrypt`."""
        return self._run(_encrypt(self._flows, data, key, aad))

    def decrypt(self, ciphertext: str, *, aad: bytes = b"") -> bytes:
        """Have the host decrypt a ciphertext (right `decrypt`).

        Raises:
            OpenError: Wrong key, aad or ciphertext.
        """
        return self.decrypt_many([ciphertext], aad=[aad])[0]

    def decrypt_many(self, ciphertexts: Sequence[str], *, aad: Sequence[bytes] | None = None) -> list[bytes]:
        """Decrypt up to 10,000 ciphertexts, all or none; see `decrypt`."""
        return self._run(_decrypt(self._flows, ciphertexts, aad))

    def mac(self, data: bytes, *, key: str) -> str:
        """HMAC-SHA256 of bytes under a key with purpose `mac` (right `mac`)."""
        return self._run(_prove(self._flows, "key.mac", data, key))

    def sign(self, data: bytes, *, key: str) -> str:
        """Sign bytes under a key with purpose `sign` (right `sign`).

        `cloister.envelope.raw.verify_signature` verifies without the host, with the key's public half.
        """
        return self._run(_prove(self._flows, "key.sign", data, key))

    def verify(self, data: bytes, proof: str) -> None:
        """Have the host verify a MAC or signature (right `verify`).

        Raises:
            OpenError: It is not of this data, or its version may verify nothing any more.
        """
        self._run(_verify(self._flows, data, proof))

    def rewrap(
        self,
        values: Sequence[str],
        *,
        key: str,
        contexts: Sequence[Context | None] | None = None,
        aad: Sequence[bytes] | None = None,
    ) -> RewrappedValues:
        """Move sealed values and ciphertexts to a key's current version, unseen (right `rewrap`).

        Args:
            values: At most 10,000.
            key: The key they are under.
            contexts: What sealed values are bound to. A value whose context is not given keeps its data key.
            aad: What ciphertexts are bound to.
        """
        return self._run(_rewrap(self._flows, values, key, contexts, aad))

    def random(self, size_bytes: int) -> bytes:
        """Random bytes from inside the TEE (right `random`)."""
        return self._run(_random(self._flows, size_bytes))

    def import_key(self, key: str, material: bytes | Mapping[str, Any], *, purpose: str, **rules: Any) -> str:
        """Bring a key: it is wrapped here to a key that the appraised host vouches for; returns its kid.

        Args:
            key: Its name; the next version of a key that exists.
            material: 32 bytes of a symmetric key, or a private JWK.
            purpose: `seal`, `seal-public`, `tokenize`, `mac` or `sign`.
            rules: As `key.create` takes them, such as `exportable=True`.
        """
        return self._run(_import(self._flows, key, material, purpose, rules))

    def export_key(self, kid: str, to: Mapping[str, Any] | jose.Key) -> WrappedKey:
        """Take a key version along, wrapped to an HPKE public half (right `key.export`).

        Raises:
            ConfigurationError: The key was not created exportable.
        """
        return self._run(_export(self._flows, kid, to))


class AsyncKeyOperations:
    """The part of `AsyncClient` that works with keys; see `KeyOperations`."""

    _flows: Flows

    @abstractmethod
    def _run(self, flow: Flow[T]) -> Awaitable[T]: ...

    async def encrypt(self, data: bytes, *, key: str, aad: bytes = b"") -> str:
        """Have the host encrypt bytes; see `Client.encrypt`."""
        return (await self.encrypt_many([data], key=key, aad=[aad]))[0]

    async def encrypt_many(
        self, data: Sequence[bytes], *, key: str, aad: Sequence[bytes] | None = None
    ) -> list[str]:
        """Encrypt many items; see `Client.encrypt_many`."""
        return await self._run(_encrypt(self._flows, data, key, aad))

    async def decrypt(self, ciphertext: str, *, aad: bytes = b"") -> bytes:
        """Have the host decrypt a ciphertext; see `Client.decrypt`."""
        return (await self.decrypt_many([ciphertext], aad=[aad]))[0]

    async def decrypt_many(
        self, ciphertexts: Sequence[str], *, aad: Sequence[bytes] | None = None
    ) -> list[bytes]:
        """Decrypt many ciphertexts; see `Client.decrypt_many`."""
        return await self._run(_decrypt(self._flows, ciphertexts, aad))

    async def mac(self, data: bytes, *, key: str) -> str:
        """HMAC-SHA256 of bytes; see `Client.mac`."""
        return await self._run(_prove(self._flows, "key.mac", data, key))

    async def sign(self, data: bytes, *, key: str) -> str:
        """Sign bytes; see `Client.sign`."""
        return await self._run(_prove(self._flows, "key.sign", data, key))

    async def verify(self, data: bytes, proof: str) -> None:
        """Have the host verify a MAC or signature; see `Client.verify`."""
        await self._run(_verify(self._flows, data, proof))

    async def rewrap(
        self,
        values: Sequence[str],
        *,
        key: str,
        contexts: Sequence[Context | None] | None = None,
        aad: Sequence[bytes] | None = None,
    ) -> RewrappedValues:
        """Move values to a key's current version; see `Client.rewrap`."""
        return await self._run(_rewrap(self._flows, values, key, contexts, aad))

    async def random(self, size_bytes: int) -> bytes:
        """Random bytes from inside the TEE; see `Client.random`."""
        return await self._run(_random(self._flows, size_bytes))

    async def import_key(
        self, key: str, material: bytes | Mapping[str, Any], *, purpose: str, **rules: Any
    ) -> str:
        """Bring a key; see `Client.import_key`."""
        return await self._run(_import(self._flows, key, material, purpose, rules))

    async def export_key(self, kid: str, to: Mapping[str, Any] | jose.Key) -> WrappedKey:
        """Take a key version along; see `Client.export_key`."""
        return await self._run(_export(self._flows, kid, to))


def _encoded(data: Sequence[bytes]) -> list[str]:
    return [jose.b64url_encode(item) for item in data]


def _aad(aad: Sequence[bytes] | None) -> dict[str, list[str]]:
    return {} if aad is None else {"aad": _encoded(aad)}


def _symmetric(octets: bytes, purpose: str) -> dict[str, str]:
    if purpose not in _SYMMETRIC:
        raise ConfigurationError(f"a key for {purpose} is brought as a private JWK")
    return symmetric_jwk(octets, _SYMMETRIC[purpose])
