"""Several processes of one machine over one SQLite file and one anchor."""

from __future__ import annotations

import threading
from pathlib import Path

from cloister_host.identity.caller import SYSTEM_TENANT
from cloister_host.identity.records import TENANTS, Tenant
from cloister_host.keymanager.root import RootKey
from cloister_host.store import Database, Store
from cloister_host.store.anchors import FileAnchor, Guardian
from cloister_host.store.turns import Turns
from support.waiting import until


def tenant() -> Tenant:
    return Tenant(state="active", created_at=1)


def test_whoever_waits_for_a_turn_goes_before_whoever_has_just_had_one(tmp_path: Path) -> None:
    first, second = Turns(tmp_path / "host.db"), Turns(tmp_path / "host.db")
    order: list[str] = []
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with second.turn():
            order.append("second")

    with first.turn():
        thread = threading.Thread(target=other)
        thread.start()
        assert waiting.wait(60)
        until(lambda: _is_next(tmp_path / "host.db-next"))
        order.append("first")
    with first.turn():
        order.append("first again")
    thread.join()
    first.close()
    second.close()
    assert order == ["first", "second", "first again"]


def _is_next(path: Path) -> bool:
    """Whether somebody holds the lock of whoever is next."""
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_another_process_writes_is_known_and_forgets_nothing(tmp_path: Path) -> None:
    root = RootKey.generate("test")
    url = f"sqlite:///{tmp_path / 'host.db'}"
    databases = [Database(url, shared=True) for _ in range(2)]
    databases[0].migrate()
    one, other = (Store(database, root.row_keys()) for database in databases)
    with one.begin() as tx:
        tx.insert(TENANTS, SYSTEM_TENANT, "a", tenant())
    with other.begin() as tx:
        assert tx.get(TENANTS, SYSTEM_TENANT, "a") is not None
        tx.insert(TENANTS, SYSTEM_TENANT, "b", tenant())
    with one.begin() as tx:
        assert tx.get(TENANTS, SYSTEM_TENANT, "b") is not None
        # Still known, though the file was written to by somebody else.
        assert one._states.cache.get(SYSTEM_TENANT, (TENANTS.name, "a")) is not None
        tx.delete(TENANTS, SYSTEM_TENANT, "a")
    with other.begin() as tx:
        assert tx.get(TENANTS, SYSTEM_TENANT, "a") is None
    one.close()
    other.close()


def test_an_answer_waits_for_the_disk_also_with_what_another_process_wrote(tmp_path: Path) -> None:
    root = RootKey.generate("test")
    url = f"sqlite:///{tmp_path / 'host.db'}"
    databases = [Database(url, shared=True) for _ in range(2)]
    databases[0].migrate()
    one, other = (Store(database, root.row_keys()) for database in databases)
    with other.begin():
        pass
    with one.begin() as tx:
        tx.insert(TENANTS, SYSTEM_TENANT, "a", tenant())
    flush = databases[1]._flush
    assert flush is not None
    before = flush._flushed
    with other.begin() as tx:
        assert tx.get(TENANTS, SYSTEM_TENANT, "a") is not None
    assert flush._flushed == before + 1
    one.close()
    other.close()


def test_processes_that_keep_one_anchor_never_lower_it(tmp_path: Path) -> None:
    root = RootKey.generate("test")
    url = f"sqlite:///{tmp_path / 'host.db'}"
    databases = [Database(url, shared=True) for _ in range(2)]
    databases[0].migrate()
    one, other = (Store(database, root.row_keys()) for database in databases)
    anchor = FileAnchor(tmp_path / "anchor")
    with one.begin() as tx:
        tx.insert(TENANTS, SYSTEM_TENANT, "a", tenant())
    Guardian(one, root.row_keys(), anchor).anchor_now()
    guardians = [Guardian(store, root.row_keys(), anchor, shared=True) for store in (one, other)]
    with other.begin() as tx:
        tx.insert(TENANTS, "acme", "c", tenant())
    with one.begin() as tx:
        tx.insert(TENANTS, SYSTEM_TENANT, "b", tenant())
    for guardian in guardians:
        guardian.anchor_now()
    assert guardians[0]._anchored(anchor).counters == {SYSTEM_TENANT: 2, "acme": 1, "": 2}
    one.close()
    other.close()
