"""Roles: actions that are granted together. None gives sight of plaintext; that is granted by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ROLES", "ROLE_PREFIX", "roles_with"]

ROLE_PREFIX: Final = "role:"

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "admin": (
        "principal.manage",
        "grant.manage",
        "group.manage",
        "issuer.manage",
        "quorum.manage",
        "key.manage",
        "key.read",
        "key.destroy",
        "key.import",
        "policy.manage",
        "secret.manage",
        "function.deploy",
        "function.manage",
        "function.logs",
        "job.manage",
        "signer.manage",
        "delivery.manage",
        "audit.read",
    ),
    "key-officer": ("key.manage", "key.read", "key.destroy", "key.import", "key.export", "rewrap"),
    "deployer": ("function.deploy", "function.manage", "function.logs"),
    "invoker": ("invoke",),
    "auditor": ("audit.read", "key.read"),
    "tokenizer": ("tokenize", "retokenize", "detokenize-masked"),
}
"""What each role may do. `admin` manages everything, and can therefore grant itself the rest: put
`policy.change` under quorum where that matters."""

_WITH: Final = {
    action: tuple(name for name, actions in ROLES.items() if action in actions)
    for actions in ROLES.values()
    for action in actions
}


def roles_with(action: str) -> tuple[str, ...]:
    """The roles that hold an action, as grants name them."""
    return tuple(f"{ROLE_PREFIX}{name}" for name in _WITH.get(action, ()))
