"""SEV-SNP and TDX through configfs-tsm (Linux Documentation/ABI/testing/configfs-tsm-report)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final, Self

from cloister.attestation import Format, report_data
from cloister.errors import UnavailableError

__all__ = ["ROOT", "TsmAttester"]

ROOT: Final = Path("/sys/kernel/config/tsm/report")
_PROVIDERS: Final = {"sev_guest": Format.SEV_SNP, "tdx_guest": Format.TDX}
_MAX_BLOB_BYTES: Final = 32 * 1024
_ATTEMPTS: Final = 4
_SNP_REPORT_BYTES: Final = 1184
_TDX_HEADER_BYTES: Final = 48
_TDX_BODY_1_5: Final = 5


class TsmAttester:
    """Evidence of this virtual machine; every request has an entry of its own, removed afterwards."""

    def __init__(self, root: Path = ROOT, *, privilege_level: int | None = None) -> None:
        self._root = root
        self._privilege_level = privilege_level
        self.format: Final = self._probe()

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """A report or quote over the statement, followed by the certificates that the platform hands out.

        Raises:
            UnavailableError: The kernel interface fails, or another process interferes again and again.
        """
        wanted = report_data(self.format, statement, nonce)["report_data"]
        try:
            with _Entry(self._root) as entry:
                for _ in range(_ATTEMPTS):
                    blobs = self._read(entry, wanted)
                    if blobs is not None:
                        return self._assemble(*blobs)
        except OSError as error:
            raise UnavailableError(
                f"configfs-tsm failed: {os.strerror(error.errno or 0)}",
                hint="mount configfs, load sev-guest or tdx-guest, and let the host write to it",
            ) from None
        raise UnavailableError("configfs-tsm was changed by another process during every attempt")

    def _probe(self) -> Format:
        try:
            with _Entry(self._root) as entry:
                provider = entry.read("provider").decode("ascii", "replace").strip()
        except OSError:
            raise UnavailableError(
                "configfs-tsm is not available", hint="mount configfs and load sev-guest or tdx-guest"
            ) from None
        if provider not in _PROVIDERS:
            raise UnavailableError(
                "the provider behind configfs-tsm is unknown", hint="upgrade cloister-host"
            )
        return _PROVIDERS[provider]

    def _read(self, entry: _Entry, wanted: bytes) -> tuple[bytes, bytes] | None:
        """Output and auxiliary blob, or None if the entry was written to meanwhile."""
        generation = int(entry.read("generation"))
        writes = 1
        if self._privilege_level is not None:
            entry.write("privlevel", str(self._privilege_level).encode())
            writes += 1
        entry.write("inblob", wanted)
        output = entry.read("outblob")
        provider = entry.read("provider").decode("ascii", "replace").strip()
        auxiliary = entry.read("auxblob") if entry.has("auxblob") else b""
        if int(entry.read("generation")) != generation + writes:
            return None
        if _PROVIDERS.get(provider) is not self.format:
            raise UnavailableError("the provider behind configfs-tsm changed")
        return output, auxiliary

    def _assemble(self, output: bytes, auxiliary: bytes) -> bytes:
        if self.format is Format.SEV_SNP:
            return output[:_SNP_REPORT_BYTES] + (auxiliary if any(auxiliary) else b"")
        return output[: _quote_bytes(output)]


def _quote_bytes(output: bytes) -> int:
    """Length of the TDX quote in a buffer that the kernel may have padded."""
    body = 584
    offset = _TDX_HEADER_BYTES
    if int.from_bytes(output[:2], "little") >= _TDX_BODY_1_5:
        body = int.from_bytes(output[offset + 2 : offset + 6], "little")
        offset += 6
    offset += body
    return offset + 4 + int.from_bytes(output[offset : offset + 4], "little")


class _Entry:
    """A report entry: a directory that the kernel fills."""

    def __init__(self, root: Path) -> None:
        self._path = root / f"cloister-{secrets.token_hex(8)}"

    def __enter__(self) -> Self:
        self._path.mkdir(mode=0o700)
        return self

    def __exit__(self, *_: object) -> None:
        self._path.rmdir()

    def has(self, name: str) -> bool:
        return (self._path / name).exists()

    def read(self, name: str) -> bytes:
        with (self._path / name).open("rb", buffering=0) as file:
            chunks = []
            while chunk := file.read(_MAX_BLOB_BYTES):
                chunks.append(chunk)
                if sum(map(len, chunks)) > _MAX_BLOB_BYTES:
                    raise UnavailableError("configfs-tsm returned too much")
        return b"".join(chunks)

    def write(self, name: str, value: bytes) -> None:
        # The kernel takes a binary attribute when it is closed, so one write and one close.
        descriptor = os.open(self._path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, value)
        finally:
            os.close(descriptor)
        if written != len(value):
            raise UnavailableError("configfs-tsm took only part of the report data")
