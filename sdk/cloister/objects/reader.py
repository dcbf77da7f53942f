"""Read any part of a sealed object without reading the rest."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cloister.errors import OpenError
from cloister.objects.frames import TAG_BYTES, plaintext_bytes
from cloister.objects.header import MAX_HEADER_BYTES, PREFIX_BYTES, ObjectHeader, read_header
from cloister.objects.streams import Recover, cipher_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

__all__ = ["FileSource", "ObjectReader", "RangeSource"]


class RangeSource(Protocol):
    """Port: bytes that can be read from anywhere, such as an object in a bucket.

    Attributes:
        size: How many bytes there are.
    """

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset`; fewer only at the end."""


class FileSource:
    """A file opened for bytes, as a range source."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)

    @property
    def size(self) -> int:
        """How many bytes the file had when it was given."""
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Read from anywhere."""
        self._file.seek(offset)
        return self._file.read(length)


class ObjectReader(io.RawIOBase):
    """The plaintext of a sealed object as a seekable file. Reads the frames it needs, one in memory.

    The last frame is authenticated first: after that the size is known, and a source that was cut off or
    grown has been found out. A source whose bytes change while it is read is found out frame by frame.

    Args:
        source: The sealed object.
        recover: Gives its content-encryption key.
        context: What it was sealed with.

    Raises:
        OpenError: It is not a sealed object, was changed or cut off, or key or context is another.
    """

    def __init__(
        self, source: RangeSource, recover: Recover, *, context: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self.header: ObjectHeader = read_header(
            io.BytesIO(source.read_at(0, min(PREFIX_BYTES + MAX_HEADER_BYTES, source.size)))
        )
        self._cipher = cipher_for(self.header, recover(self.header), context)
        self.size, self._frames = plaintext_bytes(self.header, source.size)
        self._position = 0
        self._index = -1
        self._frame = memoryview(b"")
        self._load(self._frames - 1)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins, in bytes of plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; behind the end there is nothing to read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Read up to the end of the frame at the position; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._position >= self.size or not view:
            return 0
        index, start = divmod(self._position, self.header.frame_bytes)
        self._load(index)
        part = self._frame[start : start + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _load(self, index: int) -> None:
        """Have the frame at `index` in memory, opened."""
        if index == self._index:
            return
        stride = self.header.frame_bytes + TAG_BYTES
        offset = len(self.header) + index * stride
        length = min(stride, self._source.size - offset)
        raw = self._source.read_at(offset, length)
        if len(raw) != length:
            raise OpenError
        self._index = -1  # a frame that does not open leaves none behind
        self._frame = self._cipher.open(index, raw, last=index == self._frames - 1)
        self._index = index
