"""Anchors: how far the store had come, kept where the database's owner cannot turn it back (PROTOCOL 7).

A host that runs refuses any state older than the one in its memory. Across a restart memory is lost; what
remains is the anchor. It holds the highest counter of every tenant, and a store that is behind one of them
was rolled back. It is written within a second of a change: a rollback to less than that ago, across a
crash, is not noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister.jose import b64url_encode
from cloister_host.store.canonical import canonical
from cloister_host.store.rows import RowKeys, TamperedError
from cloister_host.store.store import Store, SupersededError

__all__ = ["Anchor", "FileAnchor", "Guardian", "RolledBackError", "SupersededError"]

WRITE_SECONDS: Final = 1.0
SCRUB_SECONDS: Final = 300.0
MAX_BYTES: Final = 64 * 1024 * 1024
_LABEL: Final = b"cloister.anchor.v1"

log = structlog.get_logger(__name__)


class RolledBackError(UnavailableError):
    """The store is older than its anchor, or something else than the host left there."""

    retryable = False


class Anchor(Protocol):
    """Port: a place for one small statement, outside the database and its backups."""

    @property
    def name(self) -> str:
        """What the attested configuration calls it."""
        ...

    def read(self) -> bytes | None:
        """What was last written, or None."""
        ...

    def write(self, statement: bytes) -> None:
        """Replace it, durably; after a crash it is the old statement or the new one."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep the other processes of this host from writing it."""
        ...


class FileAnchor:
    """A file on a medium that neither the database's owner nor its backups reach.

    Args:
        path: Its folder must exist.
    """

    name: Final = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """What was last written, or None."""
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"the anchor cannot be read ({type(error).__name__})") from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other processes of this host from writing it."""
        try:
            lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UnavailableError(f"the anchor cannot be written ({type(error).__name__})") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def write(self, statement: bytes) -> None:
        """Replace it, durably."""
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
                file.write(statement)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise UnavailableError(f"the anchor cannot be written ({type(error).__name__})") from None


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    deployment: str
    counters: dict[str, int]
    incarnation: int = 0
    name: str = ""
    mac: str = ""


class Guardian:
    """Checks the store when the host starts and while it runs, and keeps its anchor.

    Args:
        store: The store.
        keys: Row keys of the deployment.
        anchor: None where there is none: then a rollback across a restart is not noticed.
        incarnation: Number and name of the restore that the store comes from.
        shared: Other processes of this host keep the same anchor.
    """

    def __init__(
        self,
        store: Store,
        keys: RowKeys,
        anchor: Anchor | None,
        *,
        incarnation: tuple[int, str] = (0, ""),
        shared: bool = False,
    ) -> None:
        self._incarnation = incarnation
        self._shared = shared
        self._store = store
        self._keys = keys
        self._anchor = anchor
        self._failure: TamperedError | None = None
        self._written: Mapping[str, int] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def incarnation(self) -> int:
        """How often the deployment was restored."""
        return self._incarnation[0]

    def check(self, seen: Mapping[str, int] | None = None) -> None:
        """Read the whole store and compare it with its own digests, with other hosts, and with the anchor.

        What was changed of single rows stops nobody but those who need them; `require_intact` tells.

        Args:
            seen: The highest counter of each tenant that other hosts have seen before now.

        Raises:
            RolledBackError: The store is behind its anchor or other hosts, or the anchor is not this
                deployment's.
            SupersededError: The deployment was restored elsewhere.
            ConfigurationError: An anchor is asked for and there is none.
        """
        self._scrub()
        counters = self._store.counters()
        if any(counters.get(tenant, -1) < least for tenant, least in (seen or {}).items()):
            raise RolledBackError(
                "the store is older than other hosts of this deployment have seen it",
                hint="point every host at the same database; restore a later copy if it was restored",
            )
        if self._anchor is None:
            return
        anchored = self._anchored(self._anchor)
        self._require_current()
        if self.is_behind(counters):
            raise RolledBackError(
                "the store is older than its anchor",
                hint="restore a later copy; `cloister host anchor --accept-this-store` takes this one",
            )
        self._written = anchored.counters

    def is_behind(self, counters: Mapping[str, int]) -> bool:
        """Whether a store with these counters is older than the anchor; an empty one knows nothing."""
        if self._anchor is None or self._anchor.read() is None:
            return False
        anchored = self._anchored(self._anchor).counters
        return any(counters.get(tenant, -1) < least for tenant, least in anchored.items())

    def anchored_incarnation(self) -> int:
        """The number of the incarnation that the anchor belongs to; 0 if it is empty."""
        if self._anchor is None or self._anchor.read() is None:
            return 0
        return self._anchored(self._anchor).incarnation

    def require_intact(self) -> None:
        """Tell whoever asks whether the host is ready.

        Raises:
            TamperedError: The last look at the whole store found something.
        """
        if self._failure is not None:
            raise TamperedError(self._failure.table)

    def anchor_now(self, *, anew: bool = False) -> None:
        """Write how far the store has come, if it has moved.

        Args:
            anew: Whatever the anchor holds: the store is the right one, somebody says so.

        Raises:
            SupersededError: The anchor belongs to another incarnation; it stays what it is.
        """
        counters = self._store.counters()
        if self._anchor is None:
            return
        if not anew:
            self._require_current()
            if counters == self._written:
                return
        number, name = self._incarnation
        with self._anchor.alone():
            highest = dict(counters)
            if self._shared and not anew:
                # The other processes have seen changes that this one has not.
                for tenant, least in self._anchored(self._anchor).counters.items():
                    highest[tenant] = max(least, highest.get(tenant, 0))
            statement = _Statement(
                deployment=self._keys.deployment, counters=highest, incarnation=number, name=name
            )
            self._anchor.write(canonical(msgspec.structs.replace(statement, mac=self._mac(statement))))
        self._written = counters

    def start(self) -> None:
        """Begin to keep the anchor, and to read the whole store once in a while."""
        self._thread = threading.Thread(target=self._run, name="cloister-guardian", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the anchor a last time, and end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with contextlib.suppress(CloisterError):
            self.anchor_now()

    def _run(self) -> None:
        since_scrub = 0.0
        while not self._closing.wait(WRITE_SECONDS):
            since_scrub += WRITE_SECONDS
            try:
                self.anchor_now()
                if since_scrub >= SCRUB_SECONDS:
                    since_scrub = 0.0
                    self._scrub()
            except SupersededError:
                log.error("store.superseded")  # noqa: TRY400 (no traceback)
                self._store.supersede()
            except CloisterError as error:
                log.warning("store.guardian_waiting", error=error.code)

    def _scrub(self) -> None:
        try:
            self._store.verify()
            self._failure = None
        except TamperedError as error:
            log.error("store.tampered", table=error.table)  # noqa: TRY400 (no traceback)
            # From now on every row is compared again when it is next asked for.
            self._store.forget_rows()
            self._failure = error

    def _require_current(self) -> None:
        """Compare the anchor's incarnation with the store's; any other one has taken over."""
        if self._anchor is None or self._anchor.read() is None:
            return
        found = self._anchored(self._anchor)
        if (found.incarnation, found.name) != self._incarnation:
            raise SupersededError

    def _anchored(self, anchor: Anchor) -> _Statement:
        raw = anchor.read()
        if raw is None:
            raise ConfigurationError(
                "the anchor is empty", hint="begin it with `cloister host anchor --accept-this-store`"
            )
        try:
            statement = msgspec.json.decode(raw, type=_Statement)
        except msgspec.MsgspecError:
            raise RolledBackError("the anchor cannot be read as one") from None
        if not hmac.compare_digest(statement.mac, self._mac(statement)):
            raise RolledBackError("the anchor is not of this deployment")
        return statement

    def _mac(self, statement: _Statement) -> str:
        content = canonical((statement.deployment, statement.counters, statement.incarnation, statement.name))
        return b64url_encode(hmac.digest(self._keys.state.reveal(), _LABEL + content, "sha256"))
