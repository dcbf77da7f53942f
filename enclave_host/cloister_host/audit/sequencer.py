"""The thread that gives entries their places: soon after they were written, and all of them in the end."""

from __future__ import annotations

import threading
from typing import Final

import structlog

from cloister.errors import CloisterError
from cloister_host.audit.audit import Audit
from cloister_host.audit.log import Log
from cloister_host.audit.states import StateCommitter
from cloister_host.store import TamperedError

__all__ = ["MERGE_DELAY_SECONDS", "Sequencer"]

log = structlog.get_logger(__name__)

MERGE_DELAY_SECONDS: Final = 10
"""The stated delay: an entry has its place at the latest so long after its act, while its replica runs."""

BATCH_SECONDS: Final = 0.5
POLL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 30.0


class Sequencer:
    """Sequences a moment after something was recorded here, so that what comes together shares one head.

    Once in a while it looks without having been told: a replica that died leaves entries to the others.
    """

    def __init__(
        self,
        audit: Audit,
        log: Log,
        *,
        batch_seconds: float = BATCH_SECONDS,
        states: StateCommitter | None = None,
    ) -> None:
        self._log = log
        self._states = states
        self._batch_seconds = batch_seconds
        self._recorded = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        audit.on_record = self._recorded.set

    def start(self) -> None:
        """Begin to sequence."""
        self._thread = threading.Thread(target=self._run, name="cloister-sequencer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sequence what is left, and end."""
        self._closing.set()
        self._recorded.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            self._thread = None

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._recorded.wait(POLL_SECONDS):
                self._closing.wait(self._batch_seconds)
            self._recorded.clear()
            if not self._sequence():
                return
        self._sequence()

    def _sequence(self) -> bool:
        try:
            if self._states is not None:
                self._states.commit_due()
            self._log.sequence()
            self._log.cosign()
        except TamperedError:
            # Rows that cannot be read stop those who need them; `Log` has said so if it is the log.
            return not self._log.failure
        except CloisterError as error:
            # The store is busy or away; the entries wait in it.
            log.warning("log.waiting", error=error.code)
        except Exception as error:  # noqa: BLE001 (a thread that ends unseen would leave entries without places)
            log.error("log.failed", error=type(error).__name__)  # noqa: TRY400 (a traceback may quote entries)
        return True
