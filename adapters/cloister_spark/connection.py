"""How an executor process reaches the host: settings that travel, credentials that never do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cloister.config import SETTINGS
from cloister.errors import ConfigurationError

if TYPE_CHECKING:
    from cloister.client import Client

__all__ = ["Connection"]

MAX_POLICY_BYTES: Final = 1024 * 1024
API_KEY_PREFIX: Final = "clk_"


@dataclass(frozen=True, slots=True)
class Connection:
    """What goes to executors inside a plan, and so into Spark's event log: names and places, no credential.

    Attributes:
        settings: Of `cloister.Client`, by name; what is not here each executor reads from its own
            environment and `cloister.toml`.
        policy: Text of the appraisal policy, read where the plan is made.
    """

    settings: tuple[tuple[str, str], ...]
    policy: str | None = field(repr=False, default=None)

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Self:
        """Check settings on the driver.

        Raises:
            ConfigurationError: A setting is unknown, holds a credential instead of its place, or the policy
                cannot be read.
        """
        unknown = settings.keys() - {setting.name for setting in SETTINGS}
        if unknown:
            raise ConfigurationError(f"unknown setting: {', '.join(sorted(unknown))}")
        texts = {name: str(value) for name, value in settings.items() if value is not None}
        if any(API_KEY_PREFIX in text for text in texts.values()):
            raise ConfigurationError(
                "an API key is no setting: it would stand in Spark's plan and event log",
                hint="give each executor a file with it, and its path as api_key_file; or use its identity",
            )
        policy = texts.pop("policy", None)
        return cls(tuple(sorted(texts.items())), None if policy is None else _read(Path(policy)))

    def client(self, *, told: Callable[[], object] | None = None) -> Client:
        """This process's client, made and attested once.

        Args:
            told: Called if it had to be made.

        Raises:
            ConfigurationError: A setting is missing here, or cannot be used.
        """
        # A forked worker must not share its parent's connections and data keys.
        place = (os.getpid(), self)
        if place not in _CLIENTS:
            _CLIENTS[place] = self._new()
            if told is not None:
                told()
        return _CLIENTS[place]

    def _new(self) -> Client:
        from cloister.client import Client  # noqa: PLC0415 (executors only: the driver needs no TLS)

        settings: dict[str, Any] = dict(self.settings)
        if self.policy is None:
            return Client.from_env(**settings)
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
            file.write(self.policy)
            file.flush()
            return Client.from_env(policy=file.name, **settings)


_CLIENTS: Final[dict[tuple[int, Connection], Client]] = {}


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_POLICY_BYTES:
            raise ValueError
        return raw.decode()
    except (OSError, ValueError):
        raise ConfigurationError(f"the policy {path} cannot be read") from None
