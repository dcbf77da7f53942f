"""The content-encryption key of an object: drawn for sealing, recovered for opening."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cloister.envelope.context import ContextMac
from cloister.envelope.sealed import is_kid
from cloister.errors import ConfigurationError, OpenError
from cloister.jose.jwe import management
from cloister.jose.keys import Key, as_key
from cloister.objects.frames import object_keys
from cloister.objects.header import SALT_BYTES, ObjectHeader
from cloister.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.envelope.dek import Dek

__all__ = ["ObjectKey", "recover_object_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectKey:
    """A content-encryption key with its wrapped form, to seal one object or many with.

    Every object gets a salt, and so a message key, of its own.
    """

    alg: str
    kid: str
    encrypted_key: bytes
    cek: Secret = field(repr=False)
    ek: str | None = None

    @classmethod
    def of_dek(cls, dek: Dek) -> Self:
        """Use a data key issued by the host; counts as one value sealed under it.

        Raises:
            LimitError: The data key has sealed all it may, or belongs to another process.
        """
        return cls(alg="A256KW", kid=dek.kid, encrypted_key=dek.encrypted_key, cek=dek.charge_object())

    @classmethod
    def to_public(cls, public_jwk: Mapping[str, Any] | Key, *, kid: str) -> Self:
        """Draw a key and seal it to the public half of a tenant's key (HPKE), offline.

        Args:
            public_jwk: The public half; where it comes from is the caller's trust decision.
            kid: The key version it is the public half of, `<name>.<version>`.

        Raises:
            ConfigurationError: The key is no HPKE key or has another `kid`.
        """
        key = as_key(public_jwk)
        if not key.alg.startswith("HPKE"):
            raise ConfigurationError(f"a {key.alg} key is no public key to seal to", hint="an HPKE key")
        if not is_kid(kid) or key.kid not in {None, kid}:
            raise ConfigurationError("kid is not <name>.<version>, or the key has another")
        drawn = management(key).draw(b"")
        return cls(
            alg=key.alg, kid=kid, encrypted_key=drawn.encrypted_key, cek=Secret(drawn.cek), ek=drawn.ek
        )

    def new_header(
        self, *, frame_bytes: int, cty: str | None, context: Mapping[str, str] | None
    ) -> ObjectHeader:
        """Make the header of a new object; its salt is drawn here.

        Raises:
            ConfigurationError: `frame_bytes`, `cty` or `context` cannot be used.
        """
        salt = os.urandom(SALT_BYTES)
        cek = self.cek.reveal()
        return ObjectHeader(
            alg=self.alg,
            kid=self.kid,
            encrypted_key=self.encrypted_key,
            salt=salt,
            commitment=object_keys(cek, salt).commitment,
            frame_bytes=frame_bytes,
            ek=self.ek,
            cty=cty,
            ctx=None if context is None else ContextMac(cek).ctx(context),
        )


def recover_object_key(header: ObjectHeader, key: Mapping[str, Any] | Key) -> Secret:
    """Recover an object's content-encryption key with the key version it names.

    Raises:
        OpenError: The object names another key, or its key does not unwrap.
    """
    key = as_key(key)
    if header.alg != key.alg or key.kid not in {None, header.kid}:
        raise OpenError
    return Secret(management(key).recover(header.ek, header.encrypted_key, b""))
