"""Sealing and opening values, beside raw AES-GCM, the AWS Encryption SDK, Tink and joserfc."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import aws_encryption_sdk
import tink
from aws_encryption_sdk.caches.local import LocalCryptoMaterialsCache
from aws_encryption_sdk.identifiers import (
    AlgorithmSuite,
    CommitmentPolicy,
    EncryptionKeyType,
    WrappingAlgorithm,
)
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from aws_encryption_sdk.materials_managers.caching import CachingCryptoMaterialsManager
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe
from joserfc.jwk import OctKey
from tink import aead, hybrid

from cloister import jose
from cloister.envelope import DataKey, Dek, seal_to
from cloister.secret import Secret
from figures import Row, median_us

SIZES = {"100 B": 100, "4 KiB": 4096, "1 MiB": 1 << 20}
CONTEXT = {"customer": "4711"}


class RawKeys(RawMasterKeyProvider):
    """A wrapping key in memory, as the AWS Encryption SDK wants it."""

    provider_id = "benchmark"

    def __init__(self, **_kwargs: object) -> None:
        super().__init__()
        self._key = os.urandom(32)

    def _get_raw_key(self, key_id: str) -> WrappingKey:  # noqa: ARG002 (the base class calls it)
        return WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=self._key,
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )


def fresh_dek() -> Dek:
    kek = jose.generate_key("A256KW", kid="bench.1")
    secret = Secret(os.urandom(32))
    wrapped = jose.wrap_key(secret, kek)
    return Dek(DataKey(kid="bench.1", dek=secret, encrypted_key=wrapped), now=0.0)


def encryption_sdk_client() -> tuple[aws_encryption_sdk.EncryptionSDKClient, CachingCryptoMaterialsManager]:
    """The AWS Encryption SDK with a wrapping key in memory and a cache of data keys."""
    client = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    )
    provider = RawKeys()
    provider.add_master_key("k")
    manager = CachingCryptoMaterialsManager(
        master_key_provider=provider,
        cache=LocalCryptoMaterialsCache(capacity=10),
        max_age=3600.0,
        max_messages_encrypted=2**32,
    )
    return client, manager


def encryption_sdk() -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    client, manager = encryption_sdk_client()
    suite = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def seal(data: bytes) -> bytes:
        sealed: bytes = client.encrypt(source=data, materials_manager=manager, algorithm=suite)[0]
        return sealed

    def open_(sealed: bytes) -> bytes:
        data: bytes = client.decrypt(source=sealed, materials_manager=manager)[0]
        return data

    return seal, open_


def rows() -> list[Row]:
    aead.register()
    tink_aead = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    sdk_seal, sdk_open = encryption_sdk()
    oct_key = OctKey.import_key(os.urandom(32))
    header = {"alg": "A256KW", "enc": "A256GCM"}
    registry = jwe.JWERegistry()
    registry.max_ciphertext_length = 4 << 20
    raw = AESGCM(os.urandom(32))
    figures: list[Row] = []
    for name, size in SIZES.items():
        data = os.urandom(size)
        dek = fresh_dek()
        sealed = dek.seal(data)
        seal, open_ = median_us(partial(dek.seal, data)), median_us(partial(dek.open, sealed))
        budget = 5.0 if size == SIZES["100 B"] else None
        iv = os.urandom(12)
        raw_sealed = raw.encrypt(iv, data, None)
        tink_sealed = tink_aead.encrypt(data, b"")
        token = jwe.encrypt_compact(header, data, oct_key, registry=registry)
        sdk_sealed = sdk_seal(data)
        peers: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "raw AES-GCM": (partial(raw.encrypt, iv, data, None), partial(raw.decrypt, iv, raw_sealed, None)),
            "AWS Encryption SDK": (partial(sdk_seal, data), partial(sdk_open, sdk_sealed)),
            "Tink": (partial(tink_aead.encrypt, data, b""), partial(tink_aead.decrypt, tink_sealed, b"")),
            "joserfc": (
                partial(jwe.encrypt_compact, header, data, oct_key, registry=registry),
                partial(jwe.decrypt_compact, token, oct_key, registry=registry),
            ),
        }
        for peer, (their_seal, their_open) in peers.items():
            figures.append(
                Row(what=f"seal {name}", ours=seal, peer=peer, theirs=median_us(their_seal), budget=budget)
            )
            figures.append(Row(what=f"open {name}", ours=open_, peer=peer, theirs=median_us(their_open)))
        if size == SIZES["100 B"]:
            bound = median_us(partial(dek.seal, data, CONTEXT))
            figures.append(Row(what="seal 100 B with a context", ours=bound, budget=10.0))
    return [*figures, post_quantum()]


def post_quantum() -> Row:
    hybrid.register()
    handle = tink.new_keyset_handle(hybrid.hybrid_key_templates.X_WING_HKDF_SHA256_HKDF_SHA256_AES_256_GCM)
    theirs = handle.public_keyset_handle().primitive(hybrid.HybridEncrypt)
    public = jose.generate_key("HPKE-10-KE", kid="letters.1").public()
    data = os.urandom(100)
    return Row(
        what="seal 100 B to the host, post-quantum",
        ours=median_us(lambda: seal_to(data, public, kid="letters.1")),
        peer="Tink X-Wing",
        theirs=median_us(lambda: theirs.encrypt(data, b"")),
        budget=125.0,
    )
