"""How much memory this machine has left."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["available_bytes"]

_MEMINFO: Final = Path("/proc/meminfo")
# Limit and use of the group that this process is in, where it sees its own (cgroup v2).
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def available_bytes() -> int:
    """What can be used without pushing anything out: of the machine, and of this process's group."""
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    machine = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = (path.read_text(encoding="ascii").strip() for path in (_LIMIT, _USED))
    except OSError:
        return machine
    return machine if limit == "max" else min(machine, int(limit) - int(used))
