"""Seal into an object store's multipart upload, and go on after an interruption.

What a part holds is fixed by the object's header and the source. A part's digest is written to the journal
before the part is sent, so that an upload that goes on can tell whether the source is still the same: two
different frames must never be let out under one index (SPEC section 4).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose import b64url_decode, b64url_encode
from cloister.jose.strict_json import load_object
from cloister.objects.header import ObjectHeader, Readable, read_header
from cloister.objects.streams import ObjectSealer, Progress

if TYPE_CHECKING:
    from cloister.objects.reader import RangeSource

__all__ = ["PART_BYTES", "Journal", "ObjectStore", "Part", "Upload", "UploadState", "upload_object"]

PART_BYTES: Final = 8 * 1024 * 1024
MIN_PART_BYTES: Final = 5 * 1024 * 1024  # of S3
PART_GRANULE: Final = 256 * 1024  # what Google Cloud Storage asks of every part but the last
MAX_PARTS: Final = 10_000  # of S3
MAX_JOURNAL_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a sealed object.

    Attributes:
        number: From 1.
        offset: Where it begins in the sealed object.
        body: Its bytes: `part_bytes` of them, fewer in the last part.
        last: Whether the sealed object ends with it.
    """

    number: int
    offset: int
    body: bytes = field(repr=False)
    last: bool


class Upload(Protocol):
    """Port: one multipart upload of an object store."""

    @property
    def id(self) -> str:
        """What the store calls it; enough to take it up again."""

    def put(self, part: Part) -> str:
        """Store a part, again if need be; gives what `finish` must be told about it."""

    def finish(self, tags: list[str]) -> None:
        """Make the object appear, whole."""

    def abort(self) -> None:
        """Give it up, and what was stored of it."""


class ObjectStore(Protocol):
    """Port: a bucket or container that sealed objects are kept in."""

    def upload(self, name: str, *, only_new: bool, resume: str | None = None) -> Upload:
        """Begin an upload, or take up the one called `resume`."""

    def source(self, name: str) -> RangeSource:
        """Open an object for ranged reads."""

    def stream(self, name: str) -> Readable:
        """Open an object to be read from its start to its end."""


@dataclass(slots=True, kw_only=True)
class UploadState:
    """What is needed to go on with an upload; holds no key and no plaintext.

    Attributes:
        upload: What the store calls the upload.
        header: The object's header, base64url.
        part_bytes: Bytes of every part but the last.
        parts: For each part sealed so far its SHA-256 and, once stored, its tag.
    """

    upload: str
    header: str
    part_bytes: int
    parts: list[list[str]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """Encode for a journal."""
        return json.dumps({"version": 1, **asdict(self)}).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read from a journal.

        Raises:
            ConfigurationError: It was not written by `to_bytes`.
        """
        try:
            if len(raw) > MAX_JOURNAL_BYTES:
                raise ValueError("size")
            members: dict[str, Any] = load_object(raw)
            if members.pop("version") != 1:
                raise ValueError("version")
            state = cls(**members)
            read_header(io.BytesIO(b64url_decode(state.header)))
            _check_part_bytes(state.part_bytes)
            for digest, tag in state.parts:
                if len(b64url_decode(digest)) != hashlib.sha256().digest_size or not _is_text(tag):
                    raise ValueError("part")
        except (KeyError, TypeError, ValueError, AttributeError, OpenError):
            raise ConfigurationError(
                "the journal of the upload cannot be read", hint="remove it, and begin the upload again"
            ) from None
        return state


Journal = Callable[[UploadState], object]
"""Keeps the state somewhere that outlives this process, before it returns."""


def upload_object(
    source: Readable,
    store: ObjectStore,
    name: str,
    seal: Callable[[ObjectHeader | None], ObjectSealer],
    *,
    only_new: bool = False,
    part_bytes: int = PART_BYTES,
    journal: Journal | None = None,
    resume: UploadState | None = None,
    progress: Progress | None = None,
) -> ObjectHeader:
    """Seal a source into an object store, part by part, in constant memory.

    Args:
        source: What is read, from its beginning also when the upload goes on.
        store: Where it goes.
        name: The object's name there, which is public.
        seal: Makes the sealer: of a new object for None, or again of the one with this header.
        only_new: Refuse to replace an object.
        part_bytes: Bytes of a part, a multiple of 256 KiB.
        journal: Told the state before and after each part; without one a failed upload is given up.
        resume: The state to go on from.
        progress: Told how many bytes of the sealed object are stored.

    Raises:
        ConfigurationError: The source is not the one that the upload began with.
        LimitError: The object needs more than 10,000 parts.
    """
    if resume is None:
        _check_part_bytes(part_bytes)
        sealer = seal(None)
        upload = store.upload(name, only_new=only_new)
        header = b64url_encode(sealer.header.raw)
        state = UploadState(upload=upload.id, header=header, part_bytes=part_bytes)
    else:
        state = resume
        sealer = seal(read_header(io.BytesIO(b64url_decode(state.header))))
        upload = store.upload(name, only_new=only_new, resume=state.upload)
    try:
        for part in _parts(sealer, source, state.part_bytes):
            _store(upload, part, state, journal)
            if progress is not None:
                progress(part.offset + len(part.body))
        upload.finish([tag for _, tag in state.parts])
    except BaseException:
        if journal is None:
            upload.abort()
        raise
    return sealer.header


def _store(upload: Upload, part: Part, state: UploadState, journal: Journal | None) -> None:
    """Store one part, unless that was done before."""
    digest = b64url_encode(hashlib.sha256(part.body).digest())
    if part.number <= len(state.parts):
        known, tag = state.parts[part.number - 1]
        if known != digest or (part.last and part.number != len(state.parts)):
            raise ConfigurationError(
                "the source is not the one that the upload began with", hint="begin the upload again"
            )
        if tag:
            return
    else:
        state.parts.append([digest, ""])
        if journal is not None:
            journal(state)
    state.parts[part.number - 1][1] = upload.put(part)
    if journal is not None:
        journal(state)


def _parts(sealer: ObjectSealer, source: Readable, part_bytes: int) -> Iterator[Part]:
    """Cut the sealed object into parts; which one is the last shows only when the source has ended."""
    number, offset = 1, 0
    pending = bytearray(sealer.header.raw)
    for frame in sealer.frames(source):
        pending += frame
        while len(pending) > part_bytes:
            if number == MAX_PARTS:
                raise LimitError("the object needs more than 10,000 parts", hint="choose larger parts")
            body = bytes(pending[:part_bytes])
            del pending[:part_bytes]
            yield Part(number=number, offset=offset, body=body, last=False)
            number, offset = number + 1, offset + part_bytes
    yield Part(number=number, offset=offset, body=bytes(pending), last=True)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_part_bytes(part_bytes: int) -> None:
    if type(part_bytes) is not int or part_bytes < MIN_PART_BYTES or part_bytes % PART_GRANULE:
        raise ConfigurationError("a part has at least 5 MiB, and a multiple of 256 KiB")
