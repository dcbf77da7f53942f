"""Unseal when enough operators bring their shares (Shamir secret sharing as SLIP-0039 writes it).

The root key is sealed with AES-256-GCM under a random key. That key is never stored: it is split into one
mnemonic for each operator, and any `threshold` of them give it back. Beside the sealed root stand digests of
the shares, so that a wrong share is known, and named, before it is used. A share has 256 random bits; its
digest gives nothing away.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError
from cloister_host.store.canonical import canonical
from cloister_host.unseal.private import read_private, write_private
from cloister_host.unseal.settings import ShamirSettings

__all__ = ["MAX_SHARES", "ShamirUnseal"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MAX_SHARES: Final = 16
MIN_THRESHOLD: Final = 2
MAX_SHARE_BYTES: Final = 4096
MAX_WRAPPED_BYTES: Final = 16384
_LABEL: Final = "cloister.unseal.shamir.v2"


class _Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the key was split; authenticated with what it sealed.

    Attributes:
        threshold: How many shares are needed.
        shares: SHA-256 of the words of each share.
    """

    threshold: int
    shares: tuple[bytes, ...]


class _Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    split: _Split
    nonce: bytes
    sealed: bytes


class ShamirUnseal:
    """Wraps under a key that nobody has alone.

    Raises:
        ConfigurationError: The extra `shamir` is not installed.
    """

    name: Final = "shamir"

    def __init__(self, settings: ShamirSettings) -> None:
        self._settings = settings
        self._slip39 = _library()

    @classmethod
    def create(cls, settings: ShamirSettings) -> ShamirUnseal:
        """Make the folder that the shares will be written into.

        Raises:
            ConfigurationError: The numbers make no sense, or the folder cannot be made or is not empty.
        """
        if not MIN_THRESHOLD <= settings.threshold <= settings.shares <= MAX_SHARES:
            raise ConfigurationError(
                f"{settings.threshold} of {settings.shares} shares make no sense",
                hint=f"{MIN_THRESHOLD} <= --threshold <= --shares <= {MAX_SHARES}",
            )
        folder = settings.folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            empty = not any(folder.iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"the folder of the shares cannot be made ({error.strerror})", hint=f"look at {folder}"
            ) from None
        if not empty:
            raise ConfigurationError(
                "the folder of the shares is not empty", hint=f"look at {folder}, or choose --shares-folder"
            )
        return cls(settings)

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap under a new key, and write its shares, with which this object unwraps from now on.

        Raises:
            ConfigurationError: A share cannot be written; none is left behind then.
        """
        settings = self._settings
        key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
        groups = [(settings.threshold, settings.shares)]
        [shares] = self._slip39.generate_mnemonics(1, groups, key, iteration_exponent=0)
        split = _Split(threshold=settings.threshold, shares=tuple(_digest(share) for share in shares))
        sealed = AESGCM(key).encrypt(nonce, plaintext, _bound(split, place))
        try:
            for number, (path, share) in enumerate(zip(settings.paths, shares, strict=True), 1):
                title = (
                    f"# Cloister: share {number} of {settings.shares}; {settings.threshold} start the host."
                )
                write_private(path, f"{title}\n{share}\n".encode("ascii"), what=f"share {number}")
        except ConfigurationError:
            for path in settings.paths:
                with suppress(OSError):
                    path.unlink()
            raise
        self._settings = replace(settings, files=settings.paths)
        return msgspec.json.encode(_Wrapped(split=split, nonce=nonce, sealed=sealed))

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap with the shares that were brought; more than are needed do no harm.

        Raises:
            ConfigurationError: A share is damaged, of another root key or given twice, there are too few of
                them, or the bytes were changed.
        """
        try:
            if len(wrapped) > MAX_WRAPPED_BYTES:
                raise _changed()
            opened = msgspec.json.decode(wrapped, type=_Wrapped)
        except (msgspec.MsgspecError, ValueError):
            raise _changed() from None
        shares = self._shares(opened.split)
        try:
            key = self._slip39.combine_mnemonics(shares[: opened.split.threshold])
            return AESGCM(key).decrypt(opened.nonce, opened.sealed, _bound(opened.split, place))
        except (self._slip39.MnemonicError, InvalidTag, ValueError):
            # What the library says can quote words of a share.
            raise _changed() from None

    def renewed(self) -> ShamirUnseal:
        """The provider, with room for the shares of the next generation."""
        return ShamirUnseal.create(self._settings)

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """Nothing is kept here; that operators have destroyed their shares, only they can say."""
        return False

    def _shares(self, split: _Split) -> list[str]:
        found: dict[bytes, Path] = {}
        shares: list[str] = []
        foreign: list[Path] = []
        for path in self._settings.files:
            share = self._read(path)
            digest = _digest(share)
            if digest not in split.shares:
                foreign.append(path)
                continue
            if digest in found:
                raise ConfigurationError(
                    f"{path} is the same share as {found[digest]}", hint="each operator brings another one"
                )
            found[digest] = path
            shares.append(share)
        if len(shares) < split.threshold:
            # While a root key is rotated, shares of two generations are brought; each opens its own.
            if foreign:
                raise ConfigurationError(f"{foreign[0]} is a share of another root key")
            raise ConfigurationError(
                f"{split.threshold} shares are needed, and {len(shares)} were given",
                hint="--share FILE, once for each operator",
            )
        return shares

    def _read(self, path: Path) -> str:
        content = read_private(path, what=f"share {path}", limit=MAX_SHARE_BYTES)
        try:
            lines = content[:MAX_SHARE_BYTES].decode("ascii").splitlines()
            words = " ".join(line for line in lines if not line.startswith("#")).lower().split()
            share = " ".join(words)
            self._slip39.Share.from_mnemonic(share)
        except (self._slip39.MnemonicError, ValueError):
            raise ConfigurationError(
                f"{path} is no share, or a word of it was changed", hint="compare it with the operator's copy"
            ) from None
        return share


def _bound(split: _Split, place: str) -> bytes:
    return canonical((_LABEL, place, split))


def _digest(share: str) -> bytes:
    return hashlib.sha256(share.encode("ascii")).digest()


def _changed() -> ConfigurationError:
    return ConfigurationError(
        "the root key does not unseal with these shares", hint="the sealed root key was changed"
    )


def _library() -> Any:
    try:
        import shamir_mnemonic  # noqa: PLC0415 (the extra `shamir`)
    except ImportError:
        raise ConfigurationError(
            "secret sharing is not installed", hint="pip install 'cloister-host[shamir]'"
        ) from None
    return shamir_mnemonic
