"""Sealed objects: files and blobs of any size, framed, sealed and opened in constant memory. See SPEC.md.

    key = ObjectKey.to_public(jwk, kid=kid)       # offline; `Client.seal_object` draws one from the host
    seal_stream(source, sink, key)                # any readable into any writable
    open_stream(source, sink, recover)            # end to end, or an error
    ObjectReader(source, recover)                 # seekable, over a range source such as an S3 object

A reader finds out about truncation, reordering, another object's frames and another key; a ranged reader
authenticates the last frame first, so that it knows the size before it believes anything.
"""

from cloister.objects.frames import FRAME_BYTES, MAX_FRAME_BYTES, MIN_FRAME_BYTES
from cloister.objects.header import ObjectHeader, Readable, is_object, read_header
from cloister.objects.keys import ObjectKey, recover_object_key
from cloister.objects.reader import FileSource, ObjectReader, RangeSource
from cloister.objects.streams import ObjectSealer, Progress, Writable, open_stream, seal_stream
from cloister.objects.uploads import (
    PART_BYTES,
    Journal,
    ObjectStore,
    Part,
    Upload,
    UploadState,
    upload_object,
)

__all__ = [
    "FRAME_BYTES",
    "MAX_FRAME_BYTES",
    "MIN_FRAME_BYTES",
    "PART_BYTES",
    "FileSource",
    "Journal",
    "ObjectHeader",
    "ObjectKey",
    "ObjectReader",
    "ObjectSealer",
    "ObjectStore",
    "Part",
    "Progress",
    "RangeSource",
    "Readable",
    "Upload",
    "UploadState",
    "Writable",
    "is_object",
    "open_stream",
    "read_header",
    "recover_object_key",
    "seal_stream",
    "upload_object",
]
