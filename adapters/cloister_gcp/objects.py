"""Sealed objects in Google Cloud Storage: resumable uploads, ranged reads. Nothing is opened here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import requests

from cloister.errors import ConfigurationError, UnavailableError
from cloister.objects import Part
from cloister_gcp.storage import refused, typed_call

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Bucket

__all__ = ["GcsObjectStore", "open_bucket"]

CONTENT_TYPE: Final = "application/octet-stream"
TIMEOUT_SECONDS: Final = 120
GRANULE_BYTES: Final = 256 * 1024
INCOMPLETE: Final = 308
FAILED: Final = 400
_PERSISTED: Final = re.compile(r"bytes=0-([0-9]+)")


class GcsObjectStore:
    """A bucket that sealed objects are kept in.

    Args:
        bucket: Of a `google.cloud.storage.Client` with your own credentials.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def upload(self, name: str, *, only_new: bool, resume: str | None = None) -> GcsUpload:
        """Begin a resumable upload, or take up the one called `resume`."""
        if resume is not None:
            return GcsUpload(resume, resumed=True)
        condition = {"if_generation_match": 0} if only_new else {}
        begin = self._bucket.blob(name).create_resumable_upload_session
        return GcsUpload(typed_call(begin, content_type=CONTENT_TYPE, **condition), resumed=False)

    def source(self, name: str) -> GcsSource:
        """Open an object for ranged reads."""
        return GcsSource(self._existing(name))

    def stream(self, name: str) -> GcsStream:
        """Open an object to be read from its start to its end."""
        blob = self._existing(name)
        return GcsStream(blob.open("rb", if_generation_match=blob.generation))

    def _existing(self, name: str) -> Blob:
        blob = typed_call(self._bucket.get_blob, name)
        if blob is None:
            raise ConfigurationError("there is no such object or bucket in Cloud Storage")
        return blob


def open_bucket(name: str) -> GcsObjectStore:
    """The bucket of this name, with application default credentials.

    Raises:
        DeniedError: There are none.
    """
    from google.cloud.storage import Client  # noqa: PLC0415 (1 s, on the first use)

    return GcsObjectStore(typed_call(Client).bucket(name))


class GcsUpload:
    """One resumable upload. Whoever has its id, a URL, may write this one object: keep it private."""

    def __init__(self, session: str, *, resumed: bool) -> None:
        self._session = session
        self._resumed = resumed

    @property
    def id(self) -> str:
        """The session's URL."""
        return self._session

    def put(self, part: Part) -> str:
        """Store a part; what an earlier process had sent of it is not sent again."""
        end = part.offset + len(part.body)
        total = str(end) if part.last else "*"
        stored = self._persisted() if self._resumed else part.offset
        self._resumed = False
        while stored is not None and stored < end:
            if stored < part.offset:
                raise UnavailableError("Cloud Storage lost a part of the upload", retryable=False)
            body = part.body[stored - part.offset :]
            now = self._put(body, f"bytes {stored}-{end - 1}/{total}")
            if now is not None and now <= stored:
                raise UnavailableError("Cloud Storage stored nothing of a part")
            stored = now
        return "stored" if stored is not None else "whole"

    def finish(self, tags: list[str]) -> None:
        """Check that the last part completed the object."""
        if not tags or tags[-1] != "whole":
            raise UnavailableError("Cloud Storage has not got the whole object", retryable=False)

    def abort(self) -> None:
        """Give it up; it would end by itself after a week."""
        _send("DELETE", self._session, b"", {})

    def _persisted(self) -> int | None:
        """How many bytes Cloud Storage has, or None if it has the whole object."""
        return self._put(b"", "bytes */*")

    def _put(self, body: bytes, content_range: str) -> int | None:
        answer = _send("PUT", self._session, body, {"Content-Range": content_range})
        if answer.status_code >= FAILED:
            raise refused(answer.status_code)
        if answer.status_code != INCOMPLETE:
            return None
        found = _PERSISTED.fullmatch(answer.headers.get("Range", ""))
        # What it keeps of an unfinished upload is a multiple of this.
        return (int(found[1]) + 1) // GRANULE_BYTES * GRANULE_BYTES if found else 0


class GcsSource:
    """One object as it was when it was opened (its generation)."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return int(self._blob.size)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read a range."""
        end = min(offset + length, self.size) - 1
        return bytes(
            typed_call(
                self._blob.download_as_bytes,
                start=offset,
                end=end,
                if_generation_match=self._blob.generation,
                checksum=None,  # a range has none; every frame is authenticated
            )
        )


class GcsStream:
    """The content of an object."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes."""
        return bytes(typed_call(self._reader.read, size))


def _send(method: str, url: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.request(method, url, data=body, headers=headers, timeout=TIMEOUT_SECONDS)
    except requests.RequestException as error:  # its message holds the session's URL
        failure = UnavailableError(f"Cloud Storage did not answer ({type(error).__name__})")
    raise failure
