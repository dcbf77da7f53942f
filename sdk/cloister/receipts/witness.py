"""Witnesses: others who saw the same log (C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-witness).

A witness signs that a head continues the last one it saw. So nobody can be shown another log than the
witness was, and a database that was rolled back cannot pass.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cloister.errors import ConfigurationError, LogError
from cloister.receipts.head import TreeHead
from cloister.receipts.merkle import HASH_BYTES, verify_consistency

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Cosigner", "NoteKey", "Seen", "WitnessAheadError", "add_request", "checkpoint", "sign_note"]

LOG, COSIGNATURE = 1, 4
"""Algorithms of note keys: Ed25519 over the note; Ed25519 over a time and the note (cosignature/v1)."""

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_PROOF_LINES: Final = 63
_SIGNATURE_LINE: Final = re.compile(r"— (\S{1,255}) ([A-Za-z0-9+/]{8,400}={0,2})")
_TIME_BYTES: Final = 8


class WitnessAheadError(LogError):
    """The witness has seen another size of this log than it was told of.

    Attributes:
        size: What it has seen.
    """

    def __init__(self, size: int) -> None:
        super().__init__("the witness has seen another size of this log")
        self.size = size


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteKey:
    """The public key of a log or a witness, as `name+hash+key` (C2SP signed-note)."""

    name: str
    algorithm: int
    public: bytes

    @classmethod
    def parse(cls, text: str, *, algorithm: int) -> NoteKey:
        """Read a key.

        Raises:
            ConfigurationError: It is malformed, or of another kind.
        """
        try:
            name, hashed, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
            key = cls(name=name, algorithm=raw[0], public=raw[1:])
            if key.algorithm != algorithm or len(key.public) != HASH_BYTES or key.key_id.hex() != hashed:
                raise ValueError
            if str(key) != text.strip():  # base64 has one form only
                raise ValueError
        except (ValueError, IndexError, binascii.Error):
            raise ConfigurationError(
                "this is not the key of a witness or a log", hint="it looks like name+01234567+base64"
            ) from None
        return key

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell signatures apart."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public).digest()[:4]

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([self.algorithm]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verify(self, note: str, lines: Sequence[str]) -> None:
        """Check that one of the signature lines is by this key, over a note.

        Raises:
            LogError: None is.
        """
        for line in lines:
            found = _SIGNATURE_LINE.fullmatch(line)
            raw = _decoded(found[2]) if found is not None and found[1] == self.name else b""
            if raw[:4] == self.key_id and self._verifies(note, raw[4:]):
                return
        raise LogError(f"{self.name} has not signed this tree head")

    def _verifies(self, note: str, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 (only with a witness)
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 (only with a witness)

        message = note.encode()
        if self.algorithm == COSIGNATURE:
            message, signature = _timed(signature[:_TIME_BYTES], note), signature[_TIME_BYTES:]
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def checkpoint(head: TreeHead) -> str:
    """The note that stands for a head: origin, size and root (C2SP tlog-checkpoint)."""
    return f"cloister/{head.deployment}\n{head.size}\n{base64.b64encode(head.root).decode()}\n"


def sign_note(note: str, key: NoteKey, private: Ed25519PrivateKey, *, now: int) -> str:
    """Sign a note; gives the signature line. `now` (epoch seconds) goes into cosignatures."""
    if key.algorithm == COSIGNATURE:
        time = now.to_bytes(_TIME_BYTES, "big")
        signature = time + private.sign(_timed(time, note))
    else:
        signature = private.sign(note.encode())
    return f"— {key.name} {base64.b64encode(key.key_id + signature).decode()}"


def add_request(old: int, path: Sequence[bytes], note: str, signature: str) -> bytes:
    """The body of `POST /add-checkpoint` (C2SP tlog-witness)."""
    proof = "".join(f"{base64.b64encode(item).decode()}\n" for item in path)
    return f"old {old}\n{proof}\n{note}\n{signature}\n".encode()


class Seen(Protocol):
    """Port: what a witness has seen, kept where the log's operator cannot reach."""

    def load(self, origin: str) -> tuple[int, bytes]:
        """Size and root of the last checkpoint of a log; (0, hash of nothing) before the first."""
        ...

    def save(self, origin: str, size: int, root: bytes) -> None:
        """Keep a later one, before anybody is shown that it was signed."""
        ...


class Cosigner:
    """A witness: cosigns checkpoints that continue what it saw. One thread at a time.

    Args:
        key: Its own key.
        private: The private half.
        logs: The logs it watches.
        seen: What it has seen of them.
    """

    def __init__(self, key: NoteKey, private: Ed25519PrivateKey, logs: Sequence[NoteKey], seen: Seen) -> None:
        self._key, self._private, self._seen = key, private, seen
        self._logs = {log.name: log for log in logs}

    def add(self, request: bytes, *, now: int) -> str:
        """Answer `POST /add-checkpoint`: the cosignature line.

        Raises:
            WitnessAheadError: The request names another size than was seen last.
            LogError: It is malformed, of a log that is not watched, or does not continue what was seen.
        """
        old, path, note, lines = _parse(request)
        origin, size, root = _checkpoint(note)
        log = self._logs.get(origin)
        if log is None:
            raise LogError("this witness does not watch that log")
        log.verify(note, lines)
        seen_size, seen_root = self._seen.load(origin)
        if old != seen_size:
            raise WitnessAheadError(seen_size)
        verify_consistency(seen_size, size, first_root=seen_root, second_root=root, path=path)
        self._seen.save(origin, size, root)
        return sign_note(note, self._key, self._private, now=now)


def _parse(request: bytes) -> tuple[int, list[bytes], str, list[str]]:
    try:
        if len(request) > MAX_REQUEST_BYTES:
            raise ValueError("too large")
        head, note, signatures = request.decode().split("\n\n", 2)
        first, *proof = head.split("\n")
        old = re.fullmatch(r"old (0|[1-9][0-9]{0,18})", first)
        path = [_strict(line) for line in proof]
        if old is None or len(path) > MAX_PROOF_LINES or any(len(item) != HASH_BYTES for item in path):
            raise ValueError("malformed")
    except (ValueError, binascii.Error):
        raise LogError("the request to the witness is malformed") from None
    return int(old[1]), path, note + "\n", signatures.split("\n")


def _checkpoint(note: str) -> tuple[str, int, bytes]:
    found = re.fullmatch(r"([^\n]{1,255})\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n", note)
    if found is None:
        raise LogError("the checkpoint is malformed")
    return found[1], int(found[2]), base64.b64decode(found[3])


def _timed(time: bytes, note: str) -> bytes:
    return f"cosignature/v1\ntime {int.from_bytes(time, 'big')}\n{note}".encode()


def _decoded(text: str) -> bytes:
    try:
        return _strict(text)
    except (ValueError, binascii.Error):
        return b""


def _strict(text: str) -> bytes:
    """Decode base64 in its one canonical form: unused bits are zero."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical")
    return raw
