"""The file system of a table, whichever one Spark reads it from (Hadoop's FileSystem, through the JVM)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from cloister.errors import ConfigurationError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["Files"]

MAX_BYTES: Final = 16 * 1024 * 1024  # of a journal


class Files:
    """Reads, writes, moves and deletes by URL.

    Raises:
        ConfigurationError: The session is remote (Spark Connect), which gives no way to the files.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = getattr(spark, "_jvm", None)
        if self._jvm is None:
            raise ConfigurationError("a rotation needs a session of its own, not Spark Connect")
        self._configuration = spark._jsc.hadoopConfiguration()  # noqa: SLF001 (Spark has no public door to files)

    def exists(self, url: str) -> bool:
        """Whether there is a file or folder."""
        file_system, path = self._at(url)
        return bool(file_system.exists(path))

    def stamp(self, url: str) -> list[str | int]:
        """What tells whether a file is the one it was: name, size, time."""
        file_system, path = self._at(url)
        status = file_system.getFileStatus(path)
        return [url, status.getLen(), status.getModificationTime()]

    def read(self, url: str) -> bytes | None:
        """A small file; None if there is none."""
        file_system, path = self._at(url)
        if not file_system.exists(path):
            return None
        if file_system.getFileStatus(path).getLen() > MAX_BYTES:
            raise ConfigurationError("the journal of the target cannot be read", hint="choose a new target")
        stream = file_system.open(path)
        try:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def write(self, url: str, content: bytes) -> None:
        """A small file, whole or not at all: written beside its place, then renamed."""
        file_system, path = self._at(url)
        beside = path.suffix(".new")
        stream = file_system.create(beside, True)  # noqa: FBT003 (a Java method)
        try:
            stream.write(bytearray(content))
        finally:
            stream.close()
        file_system.delete(path, False)  # noqa: FBT003 (as above)
        if not file_system.rename(beside, path):
            raise ConfigurationError("the target cannot be written")

    def delete(self, url: str) -> None:
        """A folder with what is in it, if it is there."""
        file_system, path = self._at(url)
        file_system.delete(path, True)  # noqa: FBT003 (as above)

    def delete_beginning(self, url: str, prefix: str) -> None:
        """Delete the files below a folder whose names begin so."""
        for file_system, path in self._below(url):
            if path.getName().startswith(prefix):
                file_system.delete(path, False)  # noqa: FBT003 (as above)

    def move_into(self, source: str, target: str, *, prefix: str) -> None:
        """Move the data files below one folder to the same places below another, under new names."""
        root = self._at(source)[1].toUri().getPath()
        for file_system, path in list(self._below(source)):
            if path.getName().startswith(("_", ".")):
                continue
            relative = path.toUri().getPath()[len(root) :].strip("/").rpartition("/")[0]
            folder = f"{target}/{relative}" if relative else target
            place = self._at(f"{folder}/{prefix}{path.getName()}")[1]
            file_system.mkdirs(place.getParent())
            if not file_system.rename(path, place):
                raise ConfigurationError("the target cannot be written")

    def _below(self, url: str) -> Iterator[tuple[Any, Any]]:
        file_system, path = self._at(url)
        if not file_system.exists(path):
            return
        found = file_system.listFiles(path, True)  # noqa: FBT003 (as above)
        while found.hasNext():
            yield file_system, found.next().getPath()

    def _at(self, url: str) -> tuple[Any, Any]:
        path = self._jvm.org.apache.hadoop.fs.Path(url)
        return path.getFileSystem(self._configuration), path
