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
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError
from cloister_host.store.canonical import canonical
from cloister_host.unseal.collecting import ShareCollector
from cloister_host.unseal.private import read_private, write_private
from cloister_host.unseal.settings import ShamirSettings
from cloister_host.unseal.wrapped import KEY_BYTES, MAX_WRAPPED_BYTES, NONCE_BYTES

__all__ = ["MAX_SHARES", "MAX_WRAPPED_BYTES", "ShamirUnseal", "ShareFiles", "Split", "changed_shares"]

MAX_SHARES: Final = 16
MIN_THRESHOLD: Final = 2
MAX_SHARE_BYTES: Final = 4096
_LABEL: Final = "cloister.unseal.shamir.v2"


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a key was split; authenticated with what it sealed.

    Attributes:
        threshold: How many shares are needed.
        shares: SHA-256 of the words of each share.
    """

    threshold: int
    shares: tuple[bytes, ...]


class ShareFiles:
    """Writes shares of a key into files, and puts the key together from those that were brought.

    Args:
        settings: Where shares are, or are to be written.
        collector: Waits for shares instead, where the settings name no files.

    Raises:
        ConfigurationError: The extra `shamir` is not installed.
    """

    def __init__(self, settings: ShamirSettings, collector: ShareCollector | None = None) -> None:
        self._settings = settings
        self._collector = collector
        self._slip39 = _library()

    def prepare(self) -> None:
        """Make the folder that the shares will be written into.

        Raises:
            ConfigurationError: The numbers make no sense, or the folder cannot be made or is not empty.
        """
        settings, folder = self._settings, self._settings.folder
        if not MIN_THRESHOLD <= settings.threshold <= settings.shares <= MAX_SHARES:
            raise ConfigurationError(
                f"{settings.threshold} of {settings.shares} shares make no sense",
                hint=f"{MIN_THRESHOLD} <= --threshold <= --shares <= {MAX_SHARES}",
            )
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

    def write(self, key: bytes, *, title: str) -> Split:
        """Split a key of 32 bytes, and write the shares, with which `combine` works from now on.

        Raises:
            ConfigurationError: A share cannot be written; none is left behind then.
        """
        settings = self._settings
        groups = [(settings.threshold, settings.shares)]
        [shares] = self._slip39.generate_mnemonics(1, groups, key, iteration_exponent=0)
        try:
            for number, (path, share) in enumerate(zip(settings.paths, shares, strict=True), 1):
                head = (
                    f"# Cloister: {title} {number} of {settings.shares}; {settings.threshold} start the host."
                )
                write_private(path, f"{head}\n{share}\n".encode("ascii"), what=f"share {number}")
        except ConfigurationError:
            for path in settings.paths:
                with suppress(OSError):
                    path.unlink()
            raise
        self._settings = replace(settings, files=settings.paths)
        return Split(threshold=settings.threshold, shares=tuple(_digest(share) for share in shares))

    def combine(self, split: Split) -> bytes:
        """The key; more shares than are needed, and those of another one, do no harm.

        Raises:
            ConfigurationError: A share is damaged or given twice, or there are too few of this key.
        """
        shares = self._shares(split)
        try:
            return bytes(self._slip39.combine_mnemonics(shares[: split.threshold]))
        except (self._slip39.MnemonicError, ValueError):
            # What the library says can quote words of a share.
            raise changed_shares() from None

    def _shares(self, split: Split) -> list[str]:
        if self._collector is not None and not self._settings.files:
            collected = self._collector.collect(partial(self._recognise, split), split.threshold)
            return [self._words(share) for share in collected]
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
            return self._words(content)
        except ValueError:
            raise ConfigurationError(
                f"{path} is no share, or a word of it was changed", hint="compare it with the operator's copy"
            ) from None

    def _recognise(self, split: Split, content: bytes) -> bytes | None:
        """The digest of a share of this key, and None for anything else."""
        try:
            digest = _digest(self._words(content))
        except ValueError:
            return None
        return digest if digest in split.shares else None

    def _words(self, content: bytes) -> str:
        """The words of a share as it was written; raises `ValueError` for what is none."""
        try:
            lines = content[:MAX_SHARE_BYTES].decode("ascii").splitlines()
            words = " ".join(line for line in lines if not line.startswith("#")).lower().split()
            share = " ".join(words)
            self._slip39.Share.from_mnemonic(share)
        except self._slip39.MnemonicError:
            # What the library says can quote words of the share.
            raise ValueError("no share") from None
        return share


class _Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    split: Split
    nonce: bytes
    sealed: bytes


class ShamirUnseal:
    """Wraps under a key that nobody has alone.

    Raises:
        ConfigurationError: The extra `shamir` is not installed.
    """

    name: Final = "shamir"

    def __init__(self, settings: ShamirSettings, collector: ShareCollector | None = None) -> None:
        self._settings = settings
        self._shares = ShareFiles(settings, collector)

    @classmethod
    def create(cls, settings: ShamirSettings) -> ShamirUnseal:
        """Make the folder that the shares will be written into.

        Raises:
            ConfigurationError: The numbers make no sense, or the folder cannot be made or is not empty.
        """
        made = cls(settings)
        made._shares.prepare()
        return made

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap under a new key, and write its shares, with which this object unwraps from now on.

        Raises:
            ConfigurationError: A share cannot be written; none is left behind then.
        """
        key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
        split = self._shares.write(key, title="share")
        sealed = AESGCM(key).encrypt(nonce, plaintext, _bound(split, place))
        return msgspec.json.encode(_Wrapped(split=split, nonce=nonce, sealed=sealed))

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap with the shares that were brought.

        Raises:
            ConfigurationError: A share is damaged, of another root key or given twice, there are too few of
                them, or the bytes were changed.
        """
        try:
            if len(wrapped) > MAX_WRAPPED_BYTES:
                raise changed_shares()
            opened = msgspec.json.decode(wrapped, type=_Wrapped)
        except (msgspec.MsgspecError, ValueError):
            raise changed_shares() from None
        key = self._shares.combine(opened.split)
        try:
            return AESGCM(key).decrypt(opened.nonce, opened.sealed, _bound(opened.split, place))
        except (InvalidTag, ValueError):
            raise changed_shares() from None

    def renewed(self) -> ShamirUnseal:
        """The provider, with room for the shares of the next generation."""
        return ShamirUnseal.create(self._settings)

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """Nothing is kept here; that operators have destroyed their shares, only they can say."""
        return False


def _bound(split: Split, place: str) -> bytes:
    return canonical((_LABEL, place, split))


def _digest(share: str) -> bytes:
    return hashlib.sha256(share.encode("ascii")).digest()


def changed_shares() -> ConfigurationError:
    """The one error for bytes that do not unwrap with shares that fit."""
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
