"""The acts that a tenant can put under quorum, and which of them stand for others too."""

from __future__ import annotations

from typing import Final

from cloister.errors import ConfigurationError

__all__ = ["ACTS", "QUORUM_CHANGE", "check_act", "implied"]

QUORUM_CHANGE: Final = "quorum.change"

ACTS: Final = {
    "key.destroy": "end a key or a version of it for good",
    "key.export": "give a wrapped key out",
    "grant.detokenize": "let somebody see the values behind tokens",
    "token.detokenize": "see the values behind tokens",
    "token.revoke": "make tokens worthless, and destroy the values behind them",
    "secret.destroy": "erase a secret's value for good",
    "function.deploy": "bring in the code of a confidential function",
    "policy.change": "widen who may do what, or change how values become tokens",
    "backup.create": "take a backup of every tenant (asked for in the system tenant)",
    "tenant.delete": "delete a tenant (asked for in the system tenant)",
    QUORUM_CHANGE: "change these rules, or who can approve",
}
"""What each act is, for people. A rule for one of them is what `quorum.set` sets."""

# A grant of detokenize is a change of policy as well: whichever rule is stricter holds.
_IMPLIED: Final = {"grant.detokenize": ("policy.change",)}


def check_act(act: str) -> None:
    """Refuse an act that does not exist.

    Raises:
        ConfigurationError: There is no such act.
    """
    if act not in ACTS:
        raise ConfigurationError("there is no such act to put under quorum", hint=f"one of {', '.join(ACTS)}")


def implied(act: str) -> tuple[str, ...]:
    """The act itself, and the acts whose rules hold for it too."""
    return (act, *_IMPLIED.get(act, ()))
