"""A configfs-tsm double in user space: the kernel's files, modes and errors, served by FUSE.

Run as `python tsm_double.py MOUNTPOINT PROVIDER RACES PLATFORM`: `RACES` attempts see another process's
write; reports come from the socket `PLATFORM`, or are unsigned if it is empty.
"""

from __future__ import annotations

import errno
import json
import socket
import stat
import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fuse  # type: ignore[import-untyped] # the library has no types

READABLE = {"outblob", "auxblob", "provider", "generation", "privlevel_floor"}
WRITABLE = {"inblob", "privlevel"}
MAX_INBLOB_BYTES = 64


class Entry:
    def __init__(self) -> None:
        self.generation = 0
        self.inblob: bytes | None = None
        self.privilege_level = 0
        self.auxiliary = bytes(24)


class Tsm(fuse.Operations):  # type: ignore[misc] # as above
    def __init__(self, provider: str, races: int, platform: str) -> None:
        self.provider = provider
        self.platform = platform
        self.races = races
        self.entries: dict[str, Entry] = {}
        self.writing: dict[int, bytes] = {}
        self.handles = 0

    def _split(self, path: str) -> tuple[str, str]:
        entry, _, file = path.strip("/").partition("/")
        return entry, file

    def getattr(self, path: str, _handle: Any = None) -> dict[str, int]:
        entry, file = self._split(path)
        if path == "/" or (entry in self.entries and not file):
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if entry not in self.entries or file not in READABLE | WRITABLE:
            raise fuse.FuseOSError(errno.ENOENT)
        mode = 0o444 if file in READABLE else 0o200
        return {"st_mode": stat.S_IFREG | mode, "st_nlink": 1, "st_size": 0}

    def readdir(self, path: str, _handle: Any) -> list[str]:
        names = self.entries if path == "/" else READABLE | WRITABLE
        return [".", "..", *names]

    def mkdir(self, path: str, _mode: int) -> None:
        self.entries[self._split(path)[0]] = Entry()

    def rmdir(self, path: str) -> None:
        del self.entries[self._split(path)[0]]

    def open(self, _path: str, _flags: int) -> int:
        self.handles += 1
        self.writing[self.handles] = b""
        return self.handles

    def truncate(self, _path: str, _length: int, _handle: Any = None) -> None:
        pass

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        entry, file = self._split(path)
        if file == "inblob":
            if offset + len(data) > MAX_INBLOB_BYTES:
                raise fuse.FuseOSError(errno.EFBIG)
            self.writing[handle] += data
        else:
            self.entries[entry].privilege_level = int(data)
            self.entries[entry].generation += 1
        return len(data)

    def flush(self, path: str, handle: int) -> int:
        entry, file = self._split(path)
        if file == "inblob" and self.writing.get(handle):
            self.entries[entry].inblob = self.writing[handle]
            self.entries[entry].generation += 1
            self.writing[handle] = b""
        return 0

    def release(self, _path: str, handle: int) -> int:
        self.writing.pop(handle, None)
        return 0

    def read(self, path: str, size: int, offset: int, _handle: Any) -> bytes:
        name, file = self._split(path)
        value = self._value(self.entries[name], file)
        return value[offset : offset + size]

    def _value(self, entry: Entry, file: str) -> bytes:
        if file == "provider":
            return self.provider.encode() + b"\n"
        if file == "generation":
            return b"%d\n" % entry.generation
        if file == "privlevel_floor":
            return b"0\n"
        if entry.inblob is None:
            raise fuse.FuseOSError(errno.EINVAL)
        if file == "auxblob":
            return entry.auxiliary
        if self.races:
            self.races -= 1
            entry.generation += 1
        return self._report(entry)

    def _report(self, entry: Entry) -> bytes:
        blob = (entry.inblob or b"").ljust(64, b"\0")
        if self.platform:
            return self._ask_platform(entry, blob)
        if self.provider == "sev_guest":
            return (bytes(0x30) + bytes([entry.privilege_level])).ljust(0x50, b"\0") + blob.ljust(1104, b"\0")
        quote = b"\4\0" + bytes(46) + bytes(520) + blob + (3).to_bytes(4, "little") + b"sig"
        return quote.ljust(8000, b"\0")

    def _ask_platform(self, entry: Entry, blob: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as platform:
            platform.connect(self.platform)
            request = {"inblob": blob.hex(), "privlevel": entry.privilege_level}
            platform.sendall(json.dumps(request).encode() + b"\n")
            with platform.makefile("rb") as answers:
                report, entry.auxiliary = map(bytes.fromhex, json.loads(answers.readline()))
        return report


if __name__ == "__main__":
    mount, provider, races, platform = sys.argv[1:]
    fuse.FUSE(Tsm(provider, int(races), platform), mount, foreground=True, nothreads=True, direct_io=True)
