"""Which sandbox this host runs functions in: the strongest, or one that was accepted by name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Literal

from cloister.errors import ConfigurationError
from cloister_host.functions.sandbox import Sandbox
from cloister_host.functions.sandbox.namespaces import NamespaceSandbox
from cloister_host.functions.sandbox.process import ProcessSandbox

__all__ = ["LAYERS", "Level", "choose_sandbox", "missing_layers"]

Level = Literal["namespaces", "process"]

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
    "rlimits",
)
"""What a host without a missing layer has."""

_STRONGEST_FIRST: Final[dict[Level, Callable[[], Sandbox]]] = {
    "namespaces": NamespaceSandbox,
    "process": ProcessSandbox,
}


def choose_sandbox(accepted: Collection[Level] = frozenset({"namespaces"})) -> Sandbox:
    """Start the strongest accepted sandbox; call it before any key is loaded.

    Raises:
        ConfigurationError: This machine gives none of them. Functions do not run with less.
    """
    refusal = ConfigurationError("no sandbox is accepted", hint="accept `namespaces`")
    for level, start in _STRONGEST_FIRST.items():
        if level not in accepted:
            continue
        try:
            return start()
        except ConfigurationError as error:
            refusal = error
    raise refusal


def missing_layers(sandbox: Sandbox) -> list[str]:
    """What this sandbox lacks; attested, and refused by production policies."""
    return [layer for layer in LAYERS if layer not in sandbox.layers]
