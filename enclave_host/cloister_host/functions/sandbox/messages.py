"""What the host tells the zygote, and what a worker says before it serves."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["BUNDLE", "MESSAGE_BYTES", "READY", "SPAWN", "Questions", "Spawn"]

MESSAGE_BYTES: Final = 4096
READY: Final = b"1"
"""From a worker: first with a descriptor of its process, then when its every layer stands."""


class Questions(msgspec.Struct, frozen=True):
    """What the host has laid out for the self-test to find.

    Attributes:
        marker: A file that everyone on the machine may read.
        host: The host's pid.
        port: A loopback port that the host listens on, UDP.
        segment: Key of a System V shared memory segment that everyone may read.
        host_name: The machine's name.
    """

    marker: str
    host: int
    port: int
    segment: int
    host_name: str


class Spawn(msgspec.Struct, frozen=True):
    """To the zygote, with two descriptors: the worker's socket and a file with the code."""

    memory_mib: int
    probe: Questions | None = None


SPAWN: Final = msgspec.msgpack.Decoder(Spawn)
BUNDLE: Final = msgspec.msgpack.Decoder(dict[str, bytes])
"""Reads the file with the code."""
