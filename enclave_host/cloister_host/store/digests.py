"""The digest of a tenant's rows: MSet-Add-Hash under a key, itself encrypted.

Each row has a tag: keyed BLAKE2b over tenant, table, id and the row's MAC, as an integer of 256 bits. The
digest is the sum of the tags modulo 2^256, so that a write costs one addition and one subtraction. Sums
of *known* numbers could be met by choosing among old rows (generalised birthday attacks); here tags are
outputs of a pseudorandom function that nobody outside ever sees, nor their sums, since the state row holds
the digest encrypted (Clarke, Devadas, van Dijk, Gassend and Suh, ASIACRYPT 2003, MSet-Add-Hash).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cloister.jose import b64url_encode
from cloister_host.store.canonical import canonical
from cloister_host.store.rows import RowKeys, TamperedError, row_binding

__all__ = ["DIGEST_BYTES", "MAC_BYTES", "Digests"]

DIGEST_BYTES: Final = 32
MAC_BYTES: Final = 32
NONCE_BYTES: Final = 12
_STATES: Final = "tenant_states"


class Digests:
    """Tags of rows, and the sealed digest of a tenant at one value of its counter.

    Args:
        keys: Row keys of the deployment.
    """

    def __init__(self, keys: RowKeys) -> None:
        self._deployment = keys.deployment
        self._tag_key = _derive(keys, "tag")
        self._aead = AESGCM(_derive(keys, "digest"))
        self._commit_key = _derive(keys, "commitment")

    def tag(self, tenant: str, table: str, row_id: str, mac: object) -> int:
        """The tag of one row, never 0.

        Raises:
            TamperedError: The row's MAC is not even of the right form.
        """
        if not isinstance(mac, bytes) or len(mac) != MAC_BYTES or not isinstance(row_id, str):
            raise TamperedError(table)
        name = canonical((tenant, table, row_id))
        return 1 | int.from_bytes(
            hashlib.blake2b(name + mac, key=self._tag_key, digest_size=32).digest(), "big"
        )

    def seal(self, tenant: str, counter: int, digest: int) -> bytes:
        """Encrypt a digest for the state row."""
        nonce = os.urandom(NONCE_BYTES)
        plain = digest.to_bytes(DIGEST_BYTES, "big")
        return nonce + self._aead.encrypt(nonce, plain, self._aad(tenant, counter))

    def open(self, tenant: str, counter: int, sealed: bytes) -> int:
        """Decrypt it again.

        Raises:
            TamperedError: It was changed, or belongs to another counter, tenant or deployment.
        """
        try:
            nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            return int.from_bytes(self._aead.decrypt(nonce, ciphertext, self._aad(tenant, counter)), "big")
        except (InvalidTag, ValueError, TypeError):  # the database may hold something else than bytes
            raise TamperedError(_STATES) from None

    def commitment(self, tenant: str, counter: int, digest: int) -> str:
        """What may be shown of a digest: a keyed hash of it, base64url."""
        content = canonical((tenant, counter, str(digest)))
        return b64url_encode(hmac.digest(self._commit_key, content, "sha256"))

    def _aad(self, tenant: str, counter: int) -> bytes:
        return row_binding(self._deployment, tenant, _STATES, "", counter)


def _derive(keys: RowKeys, label: str) -> bytes:
    info = f"cloister.state.{label}.v1".encode()
    return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(keys.state.reveal())
