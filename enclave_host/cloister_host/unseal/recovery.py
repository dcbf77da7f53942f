"""Recovery shares: enough operators together open the root key when its unseal provider is lost.

A recovery key is made once; its private half is split among operators and kept nowhere else. Each generation
of the root key has a copy that is sealed to the public half, so that a rotation needs none of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from cloister import jose
from cloister.errors import ConfigurationError, OpenError
from cloister_host.store import Table, Tx
from cloister_host.store.canonical import canonical
from cloister_host.unseal.settings import ShamirSettings
from cloister_host.unseal.shamir import MAX_WRAPPED_BYTES, ShareFiles, Split, changed_shares

__all__ = ["RECOVERIES", "Recovery", "RecoveryUnseal", "recovery_of"]

_ALG: Final = "HPKE-10-KE"
_TYP: Final = "cloister-recovery+jwe"
_NOBODY, _ID = "", "key"


class Recovery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom recovery copies are sealed to.

    Attributes:
        pub: The public half of the recovery key (JWK member `pub` of HPKE-10-KE).
        split: How the private half was split.
        created_at: Epoch seconds.
    """

    pub: str
    split: Split
    created_at: int


RECOVERIES: Final = Table("root_recoveries", Recovery, "recovery key")


class _Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    recovery: Recovery
    jwe: str


class RecoveryUnseal:
    """Seals to the recovery key, and opens with the shares that were brought.

    Args:
        settings: The shares that were brought, or where new ones are written.
        recovery: Whom to seal to; opening needs none.
    """

    name: Final = "recovery"

    def __init__(self, settings: ShamirSettings, recovery: Recovery | None = None) -> None:
        self._shares = ShareFiles(settings)
        self.recovery: Final = recovery

    @classmethod
    def create(cls, settings: ShamirSettings, *, at: int) -> RecoveryUnseal:
        """Make a recovery key, and write the shares of its private half.

        Raises:
            ConfigurationError: The numbers make no sense, or a share cannot be written.
        """
        shares = ShareFiles(settings)
        shares.prepare()
        jwk = jose.generate_key(_ALG).to_jwk()
        split = shares.write(jose.b64url_decode(jwk["priv"]), title="recovery share")
        written = replace(settings, files=settings.paths)
        return cls(written, Recovery(pub=jwk["pub"], split=split, created_at=at))

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Seal to the recovery key."""
        assert self.recovery is not None, "to seal, somebody to seal to is needed"
        public = {"kty": "AKP", "alg": _ALG, "pub": self.recovery.pub}
        jwe = jose.encrypt_compact(plaintext, public, typ=_TYP, info=_bound(self.recovery, place))
        return msgspec.json.encode(_Wrapped(recovery=self.recovery, jwe=jwe))

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Open with the shares.

        Raises:
            ConfigurationError: A share is damaged, of another key or given twice, there are too few of them,
                or the bytes were changed.
        """
        try:
            if len(wrapped) > MAX_WRAPPED_BYTES:
                raise changed_shares()
            found = msgspec.json.decode(wrapped, type=_Wrapped)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise changed_shares() from None
        seed = self._shares.combine(found.recovery.split)
        private = {"kty": "AKP", "alg": _ALG, "pub": found.recovery.pub, "priv": jose.b64url_encode(seed)}
        try:
            return jose.decrypt_compact(found.jwe, private, typ=_TYP, info=_bound(found.recovery, place))
        except (OpenError, ConfigurationError):
            raise changed_shares() from None

    def renewed(self) -> RecoveryUnseal:
        """The recovery key stays until another is made."""
        return self

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """Nothing is kept here; that operators have destroyed their shares, only they can say."""
        return False


def recovery_of(tx: Tx) -> Recovery | None:
    """Whom recovery copies are sealed to, if there is a recovery key."""
    row = tx.get(RECOVERIES, _NOBODY, _ID)
    return row.record if row else None


def put_recovery(tx: Tx, recovery: Recovery) -> None:
    """Seal later copies to another recovery key."""
    tx.put(RECOVERIES, _NOBODY, _ID, recovery)


def _bound(recovery: Recovery, place: str) -> bytes:
    return canonical(("cloister.unseal.recovery.v1", place, recovery))
