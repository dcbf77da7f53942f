"""Which sandbox this host runs functions in: the strongest, or one that was accepted by name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from cloister.errors import ConfigurationError
from cloister_host.functions.sandbox import LAYERS, Sandbox
from cloister_host.functions.sandbox.namespaces import NamespaceSandbox
from cloister_host.functions.sandbox.process import ProcessSandbox

__all__ = ["Level", "choose_sandbox", "missing_layers"]

Level = Literal["namespaces", "process"]


def choose_sandbox(
    accepted: Collection[Level] = frozenset({"namespaces"}), accepted_missing: Collection[str] = frozenset()
) -> Sandbox:
    """Start the strongest accepted sandbox; call it before any key is loaded.

    Args:
        accepted: Levels that may run functions.
        accepted_missing: Layers of the level `namespaces` that this machine may lack.

    Raises:
        ConfigurationError: This machine gives none of them. Functions do not run with less.
    """
    strongest_first: dict[Level, Callable[[], Sandbox]] = {
        "namespaces": lambda: NamespaceSandbox(accepted_missing),
        "process": ProcessSandbox,
    }
    refusal = ConfigurationError("no sandbox is accepted", hint="accept `namespaces`")
    for level, start in strongest_first.items():
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
