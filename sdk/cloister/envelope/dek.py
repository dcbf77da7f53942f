"""A data key issued by the host, and the limits within which it seals."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloister.envelope import process
from cloister.envelope.content import ContentKey, ContentSealer
from cloister.envelope.sealed import Sealed, is_kid
from cloister.envelope.values import Padded, Value, encode_value
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose._management import CEK_BYTES
from cloister.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DataKey", "Dek"]

MAX_MESSAGES: Final = 2**24
MAX_BYTES: Final = 2**36
_MAX_AGE_SECONDS: Final = 24 * 3600.0

_WRAPPED_BYTES: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """What a data-key call returns. The limits may be tighter than the protocol's, never wider.

    Attributes:
        kid: Key version the DEK is wrapped under, `<name>.<version>`.
        dek: The 32-byte data-encryption key.
        encrypted_key: The DEK under that key version (A256KW, 40 bytes).
        max_messages: How many values it may seal, at most 2**24.
        max_bytes: How many bytes of plaintext it may seal, at most 2**36.
        max_age_seconds: How long it may be leased after its issue, at most a day.
    """

    kid: str
    dek: Secret
    encrypted_key: bytes
    max_messages: int = MAX_MESSAGES
    max_bytes: int = MAX_BYTES
    max_age_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not is_kid(self.kid):
            raise ConfigurationError("data key: kid is not <name>.<version>")
        if len(self.dek) != CEK_BYTES or len(self.encrypted_key) != _WRAPPED_BYTES:
            raise ConfigurationError(f"data key: {CEK_BYTES} bytes, wrapped {_WRAPPED_BYTES}")
        if not (0 < self.max_messages <= MAX_MESSAGES and 0 < self.max_bytes <= MAX_BYTES):
            raise ConfigurationError(
                "data key: limits wider than 2**24 values or 2**36 bytes, or not positive"
            )
        if not 0 < self.max_age_seconds <= _MAX_AGE_SECONDS:
            raise ConfigurationError("data key: max_age_seconds is not within a day")


class Dek:
    """A data key in use by one process. Thread-safe; every value sealed is counted."""

    __slots__ = ("_content", "_data_key", "_epoch", "_issued", "_leased", "_lock", "_sealed")

    def __init__(self, data_key: DataKey, *, now: float) -> None:
        self._data_key = data_key
        self._content = ContentSealer(
            data_key.dek.reveal(), alg="A256KW", kid=data_key.kid, encrypted_key=data_key.encrypted_key
        )
        self._issued = now
        self._epoch = process.epoch()
        self._lock = threading.Lock()
        self._sealed = _Count()
        self._leased = _Count()

    @property
    def kid(self) -> str:
        """The key version it is wrapped under."""
        return self._data_key.kid

    def seal(self, value: Value | Padded, context: Mapping[str, str] | None = None) -> Sealed:
        """Seal one value under a fresh IV.

        Args:
            value: Bytes, text or JSON.
            context: The names and values it is bound to; it opens only with the same. None binds nothing,
                which is not the same as an empty context.

        Raises:
            LimitError: The data key has sealed all it may, or belongs to another process.
            ConfigurationError: The value or the context cannot be sealed.
        """
        cty, content = encode_value(value)
        self._charge(len(content))
        return self._content.seal(cty, content, context)

    @property
    def encrypted_key(self) -> bytes:
        """The data key under that key version."""
        return self._data_key.encrypted_key

    def reseal(self, sealed: str, under: ContentKey, context: Mapping[str, str] | None = None) -> Sealed:
        """Seal a value that was sealed `under` another key anew; see `ContentKey.reseal`.

        Raises:
            LimitError: As `seal`.
            OpenError: It does not open with that key and context.
        """
        self._charge(len(sealed))
        return under.reseal(sealed, self._content, context)

    def charge_object(self, size_bytes: int = 0) -> Secret:
        """Count one message, and give the key itself: an object derives keys of its own from it.

        Args:
            size_bytes: Bytes of plaintext that are encrypted under this very key, if any.

        Raises:
            LimitError: As `seal`.
        """
        self._charge(size_bytes)
        return self._data_key.dek

    def open(self, sealed: str, context: Mapping[str, str] | None = None) -> Value:
        """Open a value sealed under this data key; raises `OpenError`."""
        sealed = Sealed(sealed)
        if (sealed.kid, sealed.encrypted_key) != (self._data_key.kid, self._data_key.encrypted_key):
            raise OpenError
        return self._content.open(sealed, context)

    def is_fresh(self, *, now: float) -> bool:
        """Tell whether the key is within its age and of this process."""
        age = now - self._issued
        return self._epoch is process.epoch() and 0 <= age < self._data_key.max_age_seconds

    def lease(self, *, messages: int, size_bytes: int, now: float) -> bool:
        """Set aside room for a batch; False if the key is not fresh, or has no such room left."""
        if not self.is_fresh(now=now):
            return False
        try:
            with self._lock:
                self._leased.charge(self._data_key, messages, size_bytes)
        except LimitError:
            return False
        return True

    def _charge(self, size_bytes: int) -> None:
        if self._epoch is not process.epoch():
            raise LimitError(
                "the data key belongs to a process before a fork or restore", hint="lease another"
            )
        with self._lock:
            self._sealed.charge(self._data_key, 1, size_bytes)

    def __repr__(self) -> str:
        return f"Dek({self.kid!r})"


class _Count:
    """Values and bytes so far, under one data key."""

    __slots__ = ("messages", "size_bytes")

    def __init__(self) -> None:
        self.messages = 0
        self.size_bytes = 0

    def charge(self, limits: DataKey, messages: int, size_bytes: int) -> None:
        """Count, or raise `LimitError` and count nothing."""
        total, total_bytes = self.messages + messages, self.size_bytes + size_bytes
        if total > limits.max_messages or total_bytes > limits.max_bytes:
            raise LimitError("the data key has sealed all it may", hint="lease another")
        self.messages, self.size_bytes = total, total_bytes
