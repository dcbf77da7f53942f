"""Where tenant code runs: a port, and the sandboxes behind it.

A sandbox only starts processes and ends them. What is said on their channel, how long they live and
whom they serve is the same for all of them (`frames`, `workers`).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    # The worker process imports through this file and needs nothing of this.
    from cloister.function.bundle import Bundle

__all__ = ["LAYERS", "Job", "Process", "Sandbox"]

LAYERS: Final = (
    "user",
    "mnt",
    "pid",
    "net",
    "ipc",
    "uts",
    "cgroup",
    "pivot_root",
    "landlock",
    "seccomp",
    "no_new_privs",
    "no_capabilities",
    "undumpable",
    "rlimits",
)
"""What a host without a missing layer has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker process is started for.

    Attributes:
        owner: Tenant and digest. Code of different owners never shares a process.
        files: What lies where the function runs: the bundle's members, wheels unpacked.
        memory_mib: Memory beyond the interpreter itself.
    """

    owner: tuple[str, str]
    files: Mapping[str, bytes] = field(repr=False)
    memory_mib: int

    @classmethod
    def of(cls, tenant: str, bundle: Bundle) -> Job:
        """The job of a tenant's bundle.

        Raises:
            ConfigurationError: A wheel in it is damaged or not pinned.
            LimitError: Its wheels are too large.
        """
        from cloister.function.wheels import unpack_wheels  # noqa: PLC0415 - as above

        return cls(
            owner=(tenant, bundle.digest),
            files=unpack_wheels(bundle.files),
            memory_mib=bundle.manifest.limits.memory_mib,
        )


class Process(Protocol):
    """A started worker process; from the first byte on it is taken to be hostile."""

    @property
    def connection(self) -> socket.socket:
        """The host's end of the socketpair."""
        ...

    @property
    def pid(self) -> int:
        """Its number in the host's pid namespace."""
        ...

    def pause(self) -> None:
        """Stop it: between two calls nothing of a tenant runs."""
        ...

    def resume(self) -> None:
        """Let it run on."""
        ...

    def kill(self) -> None:
        """End it at once, with everything it started, and clean up. Harmless to repeat."""
        ...


class Sandbox(Protocol):
    """Port: starts worker processes that hold no key, credential or descriptor of the host.

    Attributes:
        level: Its name in the attested configuration and in receipts.
        layers: What stands between tenant code and the rest, as proven on this machine.
    """

    @property
    def level(self) -> str:
        """`process` or `namespaces`."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers present."""
        ...

    def start(self, job: Job) -> Process:
        """Start a worker; it has not imported tenant code yet.

        Raises:
            UnavailableError: The machine does not give a process now.
        """
        ...

    def close(self) -> None:
        """End everything that was started."""
        ...
