"""Tree heads kept in a file, so that a rollback of the log shows across runs (setting `head_file`)."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.errors import ConfigurationError
from cloister.receipts import HeadKeeper
from cloister.receipts.witness import COSIGNATURE, NoteKey

if TYPE_CHECKING:
    from cloister.receipts.head import TreeHead

__all__ = ["HeadFile", "head_keeper"]

MAX_FILE_BYTES: Final = 1024 * 1024


class HeadFile:
    """One JSON object: the signed head by deployment. Several processes may share it.

    Whichever of them writes last is kept; a head that another wrote meanwhile is not lost for long, since
    each is a continuation of the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, deployment: str) -> str | None:
        """The head that was kept.

        Raises:
            ConfigurationError: The file cannot be read. It is never taken for an empty one.
        """
        return self._read().get(deployment)

    def save(self, head: TreeHead) -> None:
        """Keep a head; the file is replaced in one step.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        heads = {**self._read(), head.deployment: head.token}
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(heads, file, indent=1)
            draft.replace(self._path)
        except OSError:
            raise ConfigurationError(
                f"{self._path} cannot be written", hint="see CLOISTER_HEAD_FILE"
            ) from None

    def _read(self) -> dict[str, str]:
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
            heads = json.loads(raw) if len(raw) <= MAX_FILE_BYTES else None
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            heads = None
        if not isinstance(heads, dict) or not all(isinstance(token, str) for token in heads.values()):
            raise ConfigurationError(
                f"{self._path} does not hold tree heads",
                hint="what was seen of the log is lost with it: find out what happened before you remove it",
            )
        return heads


def head_keeper(head_file: Path | None, witness: str | None) -> HeadKeeper:
    """The keeper that the settings ask for.

    Raises:
        ConfigurationError: The witness's key is malformed.
    """
    witnesses = (NoteKey.parse(witness, algorithm=COSIGNATURE),) if witness else ()
    return HeadKeeper(None if head_file is None else HeadFile(head_file), witnesses=witnesses)
