"""Seal and open files and streams of any size; `cloister.objects` is loaded when one of these is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.operations.driving import Flow, Operations, operation
from cloister.operations.flows import Context, Flows, bound_context
from cloister.protocol.session import Work
from cloister.secret import Secret

if TYPE_CHECKING:
    from cloister.objects import (
        Journal,
        ObjectHeader,
        ObjectKey,
        ObjectReader,
        ObjectSealer,
        ObjectStore,
        Progress,
        RangeSource,
        Readable,
        UploadState,
        Writable,
    )

__all__ = ["ObjectOperations", "StoredObjectOperations"]


class ObjectOperations(Operations):
    """The part of a client that works with sealed objects."""

    @operation
    def seal_object(
        self,
        source: Readable,
        sink: Writable,
        *,
        key: str,
        context: Context | None = None,
        key_context: Context | None = None,
        cty: str | None = None,
        frame_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Flow[ObjectHeader]:
        """Seal a file or stream of any size, in constant memory. See `cloister.objects`.

        Args:
            source: What is read, to its end.
            sink: Where the sealed object is written.
            key: Name of a key with purpose `seal`.
            context: As in `seal`.
            key_context: As in `seal`.
            cty: The media type; everybody can read it.
            frame_bytes: What is read and authenticated at once, 4 KiB to 16 MiB; 1 MiB by default.
            progress: Told how many bytes are done.

        Raises:
            DeniedError: No grant for `seal` on this key.
        """
        from cloister.objects import FRAME_BYTES, seal_stream  # noqa: PLC0415 (loaded by whoever seals objects)

        drawn = yield from _object_key(self._flows, key, key_context)
        bound = bound_context(context, key_context)
        size = FRAME_BYTES if frame_bytes is None else frame_bytes
        header: ObjectHeader = yield Work(
            lambda: seal_stream(
                source, sink, drawn, frame_bytes=size, cty=cty, context=bound, progress=progress
            )
        )
        return header

    @operation
    def open_object(
        self,
        source: Readable,
        sink: Writable,
        *,
        context: Context | None = None,
        progress: Progress | None = None,
    ) -> Flow[int]:
        """Open a sealed object here, under a data key that the host unwraps (right `unwrap`).

        That the object is whole is known at its end only: on an error, drop what was written.

        Returns:
            How many bytes were written.

        Raises:
            OpenError: Wrong context, key or object.
            DeniedError: No grant for `unwrap` on the object's key.
        """
        from cloister.objects import open_stream, read_header  # noqa: PLC0415 (as in seal_object)

        header: ObjectHeader = yield Work(lambda: read_header(source))
        cek = yield from _object_cek(self._flows, header)
        written: int = yield Work(
            lambda: open_stream(
                source, sink, lambda _: cek, context=context, progress=progress, header=header
            )
        )
        return written


class StoredObjectOperations(ObjectOperations):
    """What works on a store or a range as it goes, so that it cannot be one flow: for `Client` only."""

    def upload_object(
        self,
        source: Readable,
        store: ObjectStore,
        name: str,
        *,
        key: str,
        context: Context | None = None,
        cty: str | None = None,
        only_new: bool = False,
        part_bytes: int | None = None,
        journal: Journal | None = None,
        resume: UploadState | None = None,
        progress: Progress | None = None,
    ) -> ObjectHeader:
        """Seal a source into a bucket, part by part; see `cloister.objects.upload_object`.

        To go on with an upload of an earlier process (`resume`) the right `unwrap` is needed, since no key
        outlives a process.

        Args:
            source: What is read, from its beginning also when the upload goes on.
            store: For example `cloister_aws.objects.S3ObjectStore("bucket")`.
            name: The object's name in it, which is public.
            key: Name of a key with purpose `seal`.
            context: As in `seal`.
            cty: The media type; everybody can read it.
            only_new: Refuse to replace an object.
            part_bytes: Bytes of a part, a multiple of 256 KiB, at least 5 MiB; 8 MiB by default.
            journal: Told what `resume` needs, before and after each part.
            resume: What the journal of an interrupted upload was told last.
            progress: Told how many bytes of the sealed object are stored.
        """
        from cloister import objects  # noqa: PLC0415 (loaded by whoever seals objects)

        def seal(begun: ObjectHeader | None) -> ObjectSealer:
            if begun is not None:
                return objects.ObjectSealer.again(begun, self._recover(begun), context=context)
            drawn = self._run(_object_key(self._flows, key, None))
            return objects.ObjectSealer(drawn, cty=cty, context=context)

        return objects.upload_object(
            source,
            store,
            name,
            seal,
            only_new=only_new,
            part_bytes=objects.PART_BYTES if part_bytes is None else part_bytes,
            journal=journal,
            resume=resume,
            progress=progress,
        )

    def object_reader(self, source: RangeSource, *, context: Context | None = None) -> ObjectReader:
        """Read any part of a sealed object as a seekable file (right `unwrap`); errors as `open_object`."""
        from cloister.objects import ObjectReader  # noqa: PLC0415 (as in upload_object)

        return ObjectReader(source, self._recover, context=context)

    def _recover(self, header: ObjectHeader) -> Secret:
        return self._run(_object_cek(self._flows, header))


def _object_key(flows: Flows, key: str, key_context: Context | None) -> Flow[ObjectKey]:
    """A key for one new object."""
    from cloister.objects import ObjectKey  # noqa: PLC0415 (as in seal_object)

    dek = yield from flows.lease(key, key_context, messages=1, size_bytes=0)
    return ObjectKey.of_dek(dek)


def _object_cek(flows: Flows, header: ObjectHeader) -> Flow[Secret]:
    """The key of an object that is there."""
    return (yield from flows.unwrap(header.kid, header.encrypted_key, header.ek, purpose=None))
