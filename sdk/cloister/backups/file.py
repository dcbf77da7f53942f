"""The file: a sealed object, the manifest behind it, and where that begins (SPEC section 1)."""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Iterator
from typing import BinaryIO, Final

from cloister import jose
from cloister.backups.manifest import MAX_MANIFEST_BYTES, Manifest
from cloister.backups.records import Begin, Record, encode, read_records
from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.objects import ObjectKey, ObjectReader, ObjectSealer, recover_object_key

__all__ = ["CONTENT_TYPE", "MAGIC", "Backup", "BackupWriter"]

CONTENT_TYPE: Final = "application/vnd.cloister.backup"
MAGIC: Final = b"clbkp\x00\x01\n"
FOOTER_BYTES: Final = 4 + len(MAGIC)
CHUNK: Final = 1024 * 1024
BACKUP_FRAME_BYTES: Final = 765 * 1024
"""A frame in base64 fills a padded reply of 1 MiB."""


class BackupWriter:
    """Seals records into the bytes of a backup file, a frame at a time.

    Args:
        key: Public half of the backup key.

    Attributes:
        digest: SHA-256 of the sealed object so far.
        size: Its length so far.
    """

    def __init__(self, key: jose.Key) -> None:
        if key.kid is None:
            raise ConfigurationError("the backup key has no name", hint="make one with `cloister backup key`")
        self._sealer = ObjectSealer(
            ObjectKey.to_public(key, kid=key.kid), frame_bytes=BACKUP_FRAME_BYTES, cty=CONTENT_TYPE
        )
        self._hash = hashlib.sha256()
        self.size = 0

    def seal(self, records: Iterator[Record]) -> Iterator[bytes]:
        """The sealed object, in pieces of about a frame; takes records as they are needed."""
        yield self._count(self._sealer.header.raw)
        for frame in self._sealer.frames(_Encoded(records)):
            yield self._count(bytes(frame))

    def finish(self, manifest: str) -> bytes:
        """What stands behind the object: the signed manifest."""
        raw = manifest.encode("ascii")
        return raw + len(raw).to_bytes(4, "big") + MAGIC

    @property
    def digest(self) -> str:
        """SHA-256 of the object, base64url."""
        return jose.b64url_encode(self._hash.digest())

    def _count(self, part: bytes) -> bytes:
        self._hash.update(part)
        self.size += len(part)
        return part


class _Encoded:
    """Records as a file that is read once."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            record = next(self._records, None)
            if record is None:
                return b""
            self._rest = memoryview(encode(record))
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


class Backup:
    """A backup file whose manifest is signed by its deployment.

    That the rest of the file is what the manifest says is checked by `check_object`, or while it is opened.

    Args:
        file: Opened for bytes, seekable.
        deployment: Whose it must be; None accepts any, for callers that compare `manifest.deployment`.

    Raises:
        OpenError: This is no backup, or it was cut off.
        EvidenceError: Its manifest is not signed by this deployment.
        LogError: Its tree head is not of that deployment's log.
    """

    def __init__(self, file: BinaryIO, *, deployment: str | None) -> None:
        self._file = file
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - FOOTER_BYTES))
        footer = file.read(FOOTER_BYTES)
        length = int.from_bytes(footer[:4], "big")
        if footer[4:] != MAGIC or not 0 < length <= MAX_MANIFEST_BYTES or length + FOOTER_BYTES > size:
            raise OpenError("this is not a whole backup", hint="it is another file, or was cut off")
        start = size - FOOTER_BYTES - length
        file.seek(start)
        try:
            token = file.read(length).decode("ascii")
        except UnicodeDecodeError:
            raise EvidenceError("the backup's manifest is malformed") from None
        self.manifest: Final = Manifest.verify(token, deployment=deployment)
        if self.manifest.object_bytes != start:
            raise OpenError("this is not a whole backup", hint="part of it is missing, or was put in")

    def check_object(self) -> None:
        """Read the whole file and compare it with the manifest; needs no key.

        Raises:
            OpenError: It was changed.
        """
        self._file.seek(0)
        left, digest = self.manifest.object_bytes, hashlib.sha256()
        while left and (part := self._file.read(min(CHUNK, left))):
            digest.update(part)
            left -= len(part)
        found = jose.b64url_encode(digest.digest())
        if left or not hmac.compare_digest(found, self.manifest.object_digest):
            raise OpenError("the backup was changed", hint="use another copy of it")

    def records(self, key: jose.Key) -> Iterator[Record]:
        """Open it, record by record, each once; call `check_object` first.

        Raises:
            OpenError: The key is another, or the content is not what a backup holds.
        """
        if not hmac.compare_digest(jose.thumbprint(key), self.manifest.key):
            raise OpenError("the backup is sealed to another key", hint="the manifest tells which one")
        source = _Part(self._file, self.manifest.object_bytes)
        reader = ObjectReader(source, lambda header: recover_object_key(header, key))
        if reader.header.cty != CONTENT_TYPE:
            raise OpenError("this is not the content of a backup")
        for record in read_records(io.BufferedReader(reader, buffer_size=CHUNK)):
            if isinstance(record, Begin) and (record.backup, record.deployment) != (
                self.manifest.id,
                self.manifest.deployment,
            ):
                raise OpenError("the backup's content belongs to another manifest")
            yield record


class _Part:
    """The beginning of a file, as a range source."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self.size - offset)))
