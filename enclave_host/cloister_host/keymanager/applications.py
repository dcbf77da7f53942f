"""What applications do with keys: raw AEAD, MACs, signatures, random bytes."""

from __future__ import annotations

import hmac
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.envelope import Dek
from cloister.envelope.raw import Raw, encrypt_aad
from cloister.errors import CloisterError, ConfigurationError, OpenError
from cloister.jose import b64url_decode, b64url_encode, unwrap_key
from cloister.jose._signatures import Signature
from cloister_host.audit import Audit, Event
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.application_messages import (
    Ciphertexts,
    Decrypt,
    Encrypt,
    MacOrSign,
    Plaintexts,
    Proofs,
    Random,
    RandomBytes,
    Verified,
    Verify,
)
from cloister_host.keymanager.keyring import HeldKey, KeyRing
from cloister_host.keymanager.manager import KeyManager
from cloister_host.keymanager.records import Purpose
from cloister_host.keymanager.usage import Usage
from cloister_host.operations import Operation
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx
from cloister_host.store.canonical import digest

__all__ = ["KeyApplications", "RawCipher", "decode"]

IV_BYTES: Final = 12
WRAPPED_BYTES: Final = 40


class KeyApplications:
    """Encrypts, MACs, signs and verifies for the caller's tenant."""

    def __init__(
        self, *, ring: KeyRing, manager: KeyManager, usage: Usage, grants: Grants, audit: Audit
    ) -> None:
        self._ring = ring
        self._manager = manager
        self._usage = usage
        self._grants = grants
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "key.encrypt": Operation(Encrypt, self.encrypt, effect=False),
            "key.decrypt": Operation(Decrypt, self.decrypt, effect=False),
            "key.mac": Operation(MacOrSign, self.mac, effect=False),
            "key.sign": Operation(MacOrSign, self.sign, effect=False),
            "key.verify": Operation(Verify, self.verify, effect=False),
            "key.random": Operation(Random, self.random, effect=False),
        }

    def encrypt(self, caller: Caller, request: Encrypt, tx: Tx) -> Ciphertexts:
        """Encrypt bytes (right `encrypt`; one audit entry a batch).

        Raises:
            ConfigurationError: There is no such key, or none of its versions may encrypt.
            LimitError: The version has protected all it may.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "encrypt", resource)
        data = [decode(item) for item in request.data]
        aad = _aad(request.aad, len(data))
        held = self._ring.current(tx, caller.tenant, request.key, "seal")
        dek = self._manager.lease_dek(
            tx, caller.tenant, held, messages=len(data), size_bytes=sum(map(len, data))
        )
        cipher = RawCipher()
        made = [cipher.encrypt(dek, item, bound) for item, bound in zip(data, aad, strict=True)]
        self._record(tx, caller, "key.encrypt", held, len(data))
        return Ciphertexts(kid=held.kid, ciphertexts=made)

    def decrypt(self, caller: Caller, request: Decrypt, tx: Tx) -> Plaintexts:
        """Decrypt ciphertexts (right `decrypt` on every key among them; one audit entry each)."""
        aad = _aad(request.aad, len(request.ciphertexts))
        raws = [_parsed(text) for text in request.ciphertexts]
        self._require_each(tx, caller, "decrypt", raws)
        find, cipher = self._finder(tx, caller.tenant, "seal"), RawCipher()
        data: list[str | None] = []
        errors: dict[str, str] = {}
        for place, (raw, bound) in enumerate(zip(raws, aad, strict=True)):
            try:
                if raw is None:
                    raise OpenError
                data.append(b64url_encode(cipher.decrypt(raw, find(raw.kid), bound)))
            except OpenError as error:
                data.append(None)
                errors[str(place)] = error.code
        events = [
            Event(
                resource=f"key/{raw.key}" if raw else "key/*",
                outcome="failed" if str(place) in errors else "done",
                detail={"ciphertext": digest(text.encode("utf-8", "surrogatepass"))},
            )
            for place, (raw, text) in enumerate(zip(raws, request.ciphertexts, strict=True))
        ]
        self._audit.record_many(tx, caller, act="key.decrypt", events=events)
        return Plaintexts(data=data, errors=errors)

    def mac(self, caller: Caller, request: MacOrSign, tx: Tx) -> Proofs:
        """MAC bytes with HMAC-SHA256 (right `mac`; one audit entry a batch).

        Raises:
            ConfigurationError: There is no such key, or none of its versions may.
        """
        held = self._protecting(tx, caller, request, "mac")
        octets = held.octets.reveal()
        return self._proofs(
            tx, caller, held, request, lambda item: hmac.digest(octets, item, "sha256"), alg="HS256"
        )

    def sign(self, caller: Caller, request: MacOrSign, tx: Tx) -> Proofs:
        """Sign bytes (right `sign`; one audit entry a batch).

        Raises:
            ConfigurationError: There is no such key, or none of its versions may.
        """
        held = self._protecting(tx, caller, request, "sign")
        signer = cast("Signature", held.key.operations)
        return self._proofs(tx, caller, held, request, signer.sign, alg=held.key.alg)

    def verify(self, caller: Caller, request: Verify, tx: Tx) -> Verified:
        """Verify MACs and signatures (right `verify` on every key among them; one audit entry a batch)."""
        if len(request.proofs) != len(request.data):
            raise ConfigurationError("as many proofs as data are needed")
        data = [decode(item) for item in request.data]
        raws = [_parsed(text, mac_or_sign=True) for text in request.proofs]
        self._require_each(tx, caller, "verify", raws)
        finders = {
            "clm1": self._finder(tx, caller.tenant, "mac"),
            "cls1": self._finder(tx, caller.tenant, "sign"),
        }
        errors: dict[str, str] = {}
        for place, (raw, item) in enumerate(zip(raws, data, strict=True)):
            try:
                if raw is None:
                    raise OpenError
                _check(raw, finders[raw.kind](raw.kid), item)
            except OpenError as error:
                errors[str(place)] = error.code
        names = [raw.key if raw else "*" for raw in raws]
        failed = Counter(names[int(place)] for place in errors)
        for name, items in sorted(Counter(names).items()):
            detail = {"items": items, "failed": failed[name]}
            self._audit.record(tx, caller, act="key.verify", resource=f"key/{name}", detail=detail)
        return Verified(good=len(data) - len(errors), errors=errors)

    def random(self, caller: Caller, request: Random, tx: Tx) -> RandomBytes:
        """Give random bytes of the operating system inside the TEE (right `random`)."""
        self._grants.require(tx, caller, "random", "random/bytes")
        self._audit.record(
            tx, caller, act="key.random", resource="random/bytes", detail={"bytes": request.size_bytes}
        )
        return RandomBytes(data=b64url_encode(os.urandom(request.size_bytes)))

    # ------------------------------------------------------------------------------------------------

    def _protecting(self, tx: Tx, caller: Caller, request: MacOrSign, purpose: Purpose) -> HeldKey:
        self._grants.require(tx, caller, purpose, f"key/{request.key}")
        held = self._ring.current(tx, caller.tenant, request.key, purpose)
        self._usage.spend(tx, caller.tenant, held, len(request.data))
        return held

    def _proofs(
        self,
        tx: Tx,
        caller: Caller,
        held: HeldKey,
        request: MacOrSign,
        prove: Callable[[bytes], bytes],
        *,
        alg: str,
    ) -> Proofs:
        kind: Final = "clm1" if held.purpose == "mac" else "cls1"
        made = [str(Raw(kind=kind, kid=held.kid, body=prove(decode(item)))) for item in request.data]
        self._record(tx, caller, f"key.{held.purpose}", held, len(made))
        return Proofs(kid=held.kid, alg=alg, proofs=made)

    def _require_each(self, tx: Tx, caller: Caller, action: str, raws: Sequence[Raw | None]) -> None:
        for key in sorted({raw.key for raw in raws if raw}):
            self._grants.require(tx, caller, action, f"key/{key}")

    def _finder(self, tx: Tx, tenant: str, purpose: Purpose) -> Callable[[str], HeldKey]:
        """Reads each version of a batch once."""
        found: dict[str, HeldKey | None] = {}

        def find(kid: str) -> HeldKey:
            if kid not in found:
                try:
                    found[kid] = self._ring.version(tx, tenant, kid, purpose)
                    self._usage.note_opened(tx, tenant, kid, now=self._ring.now)
                except OpenError:
                    found[kid] = None
            held = found[kid]
            if held is None:
                raise OpenError
            return held

        return find

    def _record(self, tx: Tx, caller: Caller, act: str, held: HeldKey, items: int) -> None:
        name = held.kid.rpartition(".")[0]
        self._audit.record(
            tx, caller, act=act, resource=f"key/{name}", detail={"kid": held.kid, "items": items}
        )


class RawCipher:
    """Encrypts and decrypts a batch (envelope SPEC section 7); each data key is unwrapped once."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, bytes], AESGCM] = {}
        self._sealing: tuple[bytes, AESGCM] | None = None

    def encrypt(self, dek: Dek, data: bytes, aad: bytes) -> str:
        """Encrypt under a data key; its use is counted. Raises `LimitError`."""
        key = dek.charge_object(len(data))
        if self._sealing is None or self._sealing[0] != dek.encrypted_key:
            self._sealing = (dek.encrypted_key, AESGCM(key.reveal()))
        iv = os.urandom(IV_BYTES)
        sealed = self._sealing[1].encrypt(iv, data, encrypt_aad(dek.kid, aad))
        return str(Raw(kind="cle1", kid=dek.kid, body=dek.encrypted_key + iv + sealed))

    def decrypt(self, raw: Raw, held: HeldKey, aad: bytes) -> bytes:
        """Decrypt a ciphertext; raises `OpenError` for every failure alike."""
        wrapped, rest = raw.body[:WRAPPED_BYTES], raw.body[WRAPPED_BYTES:]
        entry = (held.kid, wrapped)
        if entry not in self._opened:
            self._opened[entry] = AESGCM(unwrap_key(wrapped, held.key).reveal())
        try:
            return self._opened[entry].decrypt(rest[:IV_BYTES], rest[IV_BYTES:], encrypt_aad(raw.kid, aad))
        except InvalidTag:
            raise OpenError from None


def decode(text: str) -> bytes:
    """Read bytes that came as base64url.

    Raises:
        ConfigurationError: They are not.
    """
    try:
        return b64url_decode(text)
    except ValueError:
        raise ConfigurationError("this is not canonical base64url") from None


def _check(raw: Raw, held: HeldKey, data: bytes) -> None:
    if raw.kind == "clm1":
        if not hmac.compare_digest(hmac.digest(held.octets.reveal(), data, "sha256"), raw.body):
            raise OpenError
        return
    try:
        cast("Signature", held.key.operations).verify(raw.body, data)
    except CloisterError:
        raise OpenError from None


def _parsed(text: str, *, mac_or_sign: bool = False) -> Raw | None:
    try:
        return Raw.parse(text, "clm1", "cls1") if mac_or_sign else Raw.parse(text, "cle1")
    except OpenError:
        return None


def _aad(aad: Sequence[str] | None, count: int) -> list[bytes]:
    if aad is not None and len(aad) != count:
        raise ConfigurationError("as many aad as items are needed")
    return [b""] * count if aad is None else [decode(item) for item in aad]
