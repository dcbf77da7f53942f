"""Sealed objects beside raw AES-GCM in buffers that are used again, the AWS Encryption SDK and Tink.

The share of raw AES-GCM is against one hot frame in memory, encrypted over and over: no reading, no writing,
no file. Ours reads a file of 1 GiB (in the page cache) frame by frame, derives keys, commits to them and
drops what it sealed or opened. Rounds of both alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import tink
from aws_encryption_sdk.identifiers import AlgorithmSuite
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import aead, streaming_aead

from cloister.objects import FRAME_BYTES, FileSource, ObjectKey, ObjectReader, open_stream, seal_stream
from cloister.secret import Secret
from envelope import encryption_sdk_client
from figures import Row, median_us

MIB: Final = 1 << 20
FRAMES: Final = 1024
ROUNDS: Final = 5
OBJECTS: Final = 50
EACH: Final = 1e6 / OBJECTS
PEER_FRAMES: Final = 64  # of 1 MiB; the peers' rates do not depend on the length
KEY: Final = ObjectKey(alg="A256KW", kid="bench.1", encrypted_key=os.urandom(40), cek=Secret(os.urandom(32)))
CONTEXT: Final = {"customer": "4711"}


class Discard(io.RawIOBase):
    """A sink that keeps nothing."""

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: object, /) -> int:
        """Drop it."""
        return len(data)  # type: ignore[arg-type]


def seal_file(path: Path) -> None:
    with path.open("rb", buffering=0) as source:
        seal_stream(source, Discard(), KEY, context=CONTEXT)


def open_file(path: Path) -> None:
    with path.open("rb", buffering=0) as source:
        open_stream(source, Discard(), lambda _: KEY.cek, context=CONTEXT)


class Raw:
    """AES-256-GCM on one frame, in two buffers that are used again."""

    def __init__(self) -> None:
        self.aead = AESGCM(os.urandom(32))
        self.iv = os.urandom(12)
        self.plaintext = bytearray(os.urandom(FRAME_BYTES))
        self.frame = bytearray(FRAME_BYTES + 16)

    def seal(self, frames: int = FRAMES) -> None:
        """Encrypt the frame so many times."""
        for _ in range(frames):
            self.aead.encrypt_into(self.iv, self.plaintext, None, self.frame)

    def open(self, frames: int = FRAMES) -> None:
        """Decrypt the frame so many times."""
        for _ in range(frames):
            self.aead.decrypt_into(self.iv, self.frame, None, self.plaintext)


def alternating(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, over rounds in which each ran once."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, seconds in zip(works, spent, strict=True):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in spent]


def resident_mib() -> float:
    """The most memory this process ever held, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("this needs Linux")


def forget_peak() -> None:
    """Let the peak of resident memory begin anew (Linux, proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return [*large(Path(folder)), *one_frame(), *ranged(Path(folder))]


def large(folder: Path) -> list[Row]:
    plain, sealed = folder / "plain", folder / "sealed"
    with plain.open("wb") as file:
        for _ in range(FRAMES):
            file.write(os.urandom(MIB))
    with plain.open("rb", buffering=0) as source, sealed.open("wb") as sink:
        seal_stream(source, sink, KEY, context=CONTEXT)
    raw = Raw()
    raw.seal(1)
    forget_peak()
    before = resident_mib()
    ours_seal, ours_open, raw_seal, raw_open = alternating(
        partial(seal_file, plain), partial(open_file, sealed), raw.seal, raw.open
    )
    grown = resident_mib() - before
    figures = [
        Row(what="seal 1 GiB, share of raw AES-GCM", ours=100 * raw_seal / ours_seal, unit="%", budget=60),
        Row(what="open 1 GiB, share of raw AES-GCM", ours=100 * raw_open / ours_open, unit="%", budget=60),
        Row(what="resident memory above the start, 1 GiB", ours=grown, unit="MiB", budget=64),
    ]
    seal, open_ = FRAMES / ours_seal, FRAMES / ours_open
    for peer, (their_seal, their_open) in streaming_peers().items():
        figures += [
            Row(what="seal a stream", ours=seal, unit="MiB/s", peer=peer, theirs=their_seal),
            Row(what="open a stream", ours=open_, unit="MiB/s", peer=peer, theirs=their_open),
        ]
    return figures


class Kept(io.BytesIO):
    """A sink whose bytes are wanted after Tink closed it."""

    def close(self) -> None:
        """Stay."""


class SdkStreams:
    """The AWS Encryption SDK's own streams."""

    def __init__(self) -> None:
        self.client, self.manager = encryption_sdk_client()

    def seal(self, data: bytes, sink: io.IOBase) -> None:
        """Encrypt in frames of 1 MiB, with key commitment."""
        with self.client.stream(
            mode="e",
            source=io.BytesIO(data),
            source_length=len(data),
            materials_manager=self.manager,
            algorithm=AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
            frame_length=FRAME_BYTES,
        ) as encryptor:
            sink.writelines(encryptor)  # type: ignore[attr-defined]

    def open(self, sealed: bytes) -> None:
        """Decrypt and drop."""
        source = io.BytesIO(sealed)
        with self.client.stream(mode="d", source=source, materials_manager=self.manager) as decryptor:
            for _part in decryptor:
                pass


class TinkStreams:
    """Tink's streaming AEAD."""

    def __init__(self) -> None:
        streaming_aead.register()
        template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
        self.stream = tink.new_keyset_handle(template).primitive(streaming_aead.StreamingAead)

    def seal(self, data: bytes, sink: io.IOBase) -> None:
        """Encrypt in segments of 1 MiB."""
        with self.stream.new_encrypting_stream(sink, b"") as encryptor:
            for start in range(0, len(data), MIB):
                encryptor.write(data[start : start + MIB])

    def open(self, sealed: bytes) -> None:
        """Decrypt and drop."""
        with self.stream.new_decrypting_stream(io.BytesIO(sealed), b"") as decryptor:
            while decryptor.read(MIB):
                pass


def streaming_peers() -> dict[str, tuple[float, float]]:
    """MiB a second of each peer's own streams, in memory: seal, open."""
    data = os.urandom(PEER_FRAMES * MIB)
    rates = {}
    for name, peer in {"AWS Encryption SDK": SdkStreams(), "Tink": TinkStreams()}.items():
        kept = Kept()
        peer.seal(data, kept)
        seconds = alternating(partial(peer.seal, data, Discard()), partial(peer.open, kept.getvalue()))
        rates[name] = (PEER_FRAMES / seconds[0], PEER_FRAMES / seconds[1])
    return rates


def repeat(work: Callable[[], object]) -> None:
    for _ in range(OBJECTS):
        work()


def one_frame() -> list[Row]:
    """Objects of one frame: what making a header, deriving keys and a buffer cost."""
    data, small = os.urandom(MIB), os.urandom(100)
    raw = Raw()
    client, manager = encryption_sdk_client()
    aead.register()
    their_aead = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    peers: dict[str, Callable[[], object]] = {
        "raw AES-GCM, reused buffers": partial(raw.seal, 1),
        "raw AES-GCM": partial(raw.aead.encrypt, raw.iv, data, None),
        "Tink AEAD": partial(their_aead.encrypt, data, b""),
        "AWS Encryption SDK": partial(client.encrypt, source=data, materials_manager=manager),
    }
    ours, *theirs = alternating(
        *(
            partial(repeat, work)
            for work in (lambda: seal_stream(io.BytesIO(data), Discard(), KEY), *peers.values())
        )
    )
    figures = [
        Row(what="seal a 1 MiB object", ours=ours * EACH, peer=peer, theirs=seconds * EACH, budget=200)
        for peer, seconds in zip(peers, theirs, strict=True)
    ]
    tiny = median_us(lambda: seal_stream(io.BytesIO(small), Discard(), KEY))
    return [*figures, Row(what="seal a 100 B object", ours=tiny)]


def ranged(folder: Path) -> list[Row]:
    """Reading 100 bytes near the middle of the 1 GiB object: header, last frame and one frame are opened."""
    with (folder / "sealed").open("rb", buffering=0) as file:

        def middle() -> None:
            with ObjectReader(FileSource(file), lambda _: KEY.cek, context=CONTEXT) as reader:
                reader.seek(FRAMES * MIB // 2)
                reader.read(100)

        return [Row(what="read 100 B from the middle of 1 GiB", ours=median_us(middle))]
