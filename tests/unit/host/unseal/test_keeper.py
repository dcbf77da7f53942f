"""The root key is rotated while hosts serve, moved, destroyed and recovered; no crash leaves it half done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.keymanager.root import RootKey
from cloister_host.store import Database, Store, TamperedError, Tx
from cloister_host.unseal import Unseal
from cloister_host.unseal.copies import RootParts, add_copy, copies_of, open_copy, seal_copy
from cloister_host.unseal.file import FileUnseal
from cloister_host.unseal.keeper import RootKeeper
from cloister_host.unseal.recovery import RecoveryUnseal
from cloister_host.unseal.root import loader, open_root
from cloister_host.unseal.settings import ShamirSettings
from support import require
from support.host_world import HostWorld

_SECRET = "hunter2"


class CrashError(BaseException):
    """The process dies here."""


class Other(FileUnseal):
    """A provider of another name."""

    name = "pkcs11"  # type: ignore[misc]


class Deployment:
    """A deployment with two tenants, its sealed root key, and as many processes over it as are opened."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        parts = RootParts.draw("test")
        self.name = parts.root().deployment
        self.host = HostWorld(folder, url=url, root=parts.root())
        self.file = FileUnseal.create(folder / "unseal.key")
        self.other = Other.create(folder / "other.key")
        with self.host.store.begin() as tx:
            add_copy(tx.execute, seal_copy(self.file, parts))
        self.host.root.generations.load = loader(self.file)
        self.host.call(self.host.admin, "secret.put", secret="partner", value=_SECRET)

    @contextmanager
    def keeper(self, unseal: Unseal | None = None) -> Iterator[RootKeeper]:
        """A process that opens the root key anew."""
        with self.process(unseal or self.file) as (store, root, parts):
            yield RootKeeper(store, root.generations, parts, self.host.services.audit, self.host.clock)

    @contextmanager
    def process(self, unseal: Unseal) -> Iterator[tuple[Store, RootKey, RootParts]]:
        database = Database(self.url)
        try:
            parts = open_root(database, unseal, "test")
            root = parts.root()
            root.generations.load = loader(unseal)
            yield Store(database, root.row_keys()), root, parts
        finally:
            database.close()

    def check(self, unseal: Unseal | None = None) -> None:
        """A new process is the same deployment, and opens what every tenant has."""
        with self.process(unseal or self.file) as (store, _, parts):
            assert parts.root().deployment == self.name
            store.verify()
            for tenant in ("acme", "globex", "system"):
                with store.begin() as tx:
                    assert tx.derived_key(tenant, "anything")

    def generation_of(self, tenant: str) -> int:
        with self.host.store.begin() as tx:
            return tx.root_generation(tenant)

    def alive(self) -> frozenset[int]:
        with self.host.store.begin() as tx:
            return tx.root_generations()


@pytest.fixture
def deployment(tmp_path: Path, database_url: str) -> Iterator[Deployment]:
    made = Deployment(tmp_path, database_url)
    yield made
    made.host.close()


@pytest.fixture
def shares(tmp_path: Path) -> ShamirSettings:
    require.module("shamir_mnemonic", install="pip install shamir-mnemonic")
    return ShamirSettings(shares=3, threshold=2, folder=tmp_path / "recovery")


def brought(shares: ShamirSettings, *numbers: int) -> RecoveryUnseal:
    return RecoveryUnseal(replace(shares, files=tuple(shares.paths[number - 1] for number in numbers)))


# --- rotation ---------------------------------------------------------------------------------------


def test_a_rotation_wraps_every_tenant_and_the_deployment_stays(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        assert keeper.rotate(deployment.file) == 2
        assert [(found.number, found.record.state, found.tenants) for found in keeper.status()] == [
            (1, "retired", 0),
            (2, "active", 3),
        ]
    deployment.check()


def test_a_host_that_serves_goes_on(deployment: Deployment) -> None:
    """It learns of the new generation when it first meets it, and makes new tenants under it."""
    host = deployment.host
    host.call(host.admin, "key.create", key="before", purpose="seal")
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
    user = host.principal("app", ("seal", "*"))
    assert host.call(user, "key.data_key", key="before").kid == "before.1"
    host.call(host.operator, "tenant.create", tenant="initech")
    assert deployment.generation_of("initech") == 2
    deployment.check()


def test_a_tenant_that_is_made_meanwhile_is_wrapped_too(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = RootKeeper._begin

    def late(self: RootKeeper, before: int, providers: Any) -> int:
        deployment.host.call(deployment.host.operator, "tenant.create", tenant="initech")
        return begin(self, before, providers)

    monkeypatch.setattr(RootKeeper, "_begin", late)
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
    assert deployment.generation_of("initech") == 2


def test_a_sealed_off_tenant_stays_sealed_off_and_is_wrapped(deployment: Deployment) -> None:
    host = deployment.host
    host.call(host.operator, "tenant.seal_off", tenant="acme")
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
    assert deployment.generation_of("acme") == 2
    with pytest.raises(UnavailableError, match="sealed off"):
        host.call(host.admin, "secret.put", secret="s", value="v")
    host.call(host.operator, "tenant.unseal", tenant="acme")
    host.call(host.admin, "secret.put", secret="s", value="v")


def test_it_can_be_rotated_again_and_again(deployment: Deployment) -> None:
    for number in (2, 3, 4):
        with deployment.keeper() as keeper:
            assert keeper.rotate(deployment.file) == number
    deployment.check()
    assert deployment.alive() == {1, 2, 3, 4}


def test_each_act_is_in_the_log(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        keeper.destroy(1, [deployment.file])
    found = [(entry.act, entry.resource) for entry in deployment.host.audited(tenant="system")]
    for act in ("root.rotate", "root.rewrap", "root.destroy"):
        assert act in {name for name, _ in found}
    assert ("root.rewrap", "tenant/acme") in found


def test_a_generation_that_is_put_back_with_a_pen_is_found(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        keeper.destroy(1, [deployment.file])
    deployment.host.pen("UPDATE root_generations SET content = replace(content, 'destroyed', 'active')")
    with (
        pytest.raises(TamperedError),
        deployment.process(deployment.file) as (store, _, _),
        store.begin() as tx,
    ):
        tx.root_generations()


def test_a_newer_generation_that_is_deleted_with_a_pen_is_found(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
    deployment.host.pen("DELETE FROM root_generations")
    with pytest.raises(TamperedError):
        deployment.host.call(deployment.host.operator, "tenant.create", tenant="initech")


# --- destruction ------------------------------------------------------------------------------------


def test_what_is_destroyed_opens_no_copy_of_the_database(deployment: Deployment) -> None:
    with deployment.host.store.begin() as tx:
        [kept] = copies_of(tx.execute)
    open_copy(deployment.file, kept)
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        record = keeper.destroy(1, [deployment.file])
        assert (record.state, record.checked, record.told) == ("destroyed", ("file",), ())
        assert keeper.destroy(1, [deployment.file]) == record, "twice does no harm"
    with pytest.raises(ConfigurationError):
        open_copy(FileUnseal(deployment.folder / "unseal.key"), kept)
    deployment.check()
    assert deployment.alive() == {2}


def test_a_deleted_tenant_is_deleted_once_its_generations_are_destroyed(deployment: Deployment) -> None:
    host = deployment.host
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
    host.call(host.operator, "tenant.seal_off", tenant="acme")
    report = host.call(host.operator, "tenant.delete", tenant="acme")
    assert len(report.remains) == 2, "copies of before and after the rotation open"
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        for number in (1, 2):
            keeper.destroy(number, [deployment.file])
    report = host.call(host.operator, "tenant.deletion_report", tenant="acme")
    assert (report.state, report.remains) == ("deleted", [])


@pytest.mark.parametrize(("number", "message"), [(1, "in use"), (2, "unknown"), (0, "unknown")])
def test_what_is_in_use_or_unknown_is_not_destroyed(
    deployment: Deployment, number: int, message: str
) -> None:
    with deployment.keeper() as keeper, pytest.raises(ConfigurationError, match=message):
        keeper.destroy(number, [deployment.file])
    deployment.check()


def test_nothing_is_destroyed_that_a_tenant_hangs_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RootKeeper, "_rewrap", lambda _self, _newest: None)
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        with pytest.raises(ConfigurationError, match="hang on generation 1"):
            keeper.destroy(1, [deployment.file])
    deployment.check()


def test_what_nobody_saw_or_said_is_not_destroyed(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        with pytest.raises(ConfigurationError, match="--destroyed file"):
            keeper.destroy(1, [])
        assert deployment.alive() == {1, 2}
        record = keeper.destroy(1, [], told=["file"])
    assert (record.checked, record.told) == ((), ("file",))


def test_a_provider_that_only_says_so_is_not_believed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileUnseal, "destroy", lambda *_: True)
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        with pytest.raises(ConfigurationError, match="still opens"):
            keeper.destroy(1, [deployment.file])
    assert deployment.alive() == {1, 2}


# --- moving -----------------------------------------------------------------------------------------


def test_a_deployment_moves_to_another_provider(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file, deployment.other)
    deployment.check()  # hosts that were started with the provider before go on
    deployment.check(deployment.other)
    with deployment.keeper(deployment.other) as keeper:
        record = keeper.destroy(1, [deployment.other, deployment.file])
        assert record.checked == ("file",)
        assert keeper.leave(deployment.file, stays=deployment.other) == 1
        assert keeper.leave(deployment.file, stays=deployment.other) == 0
        assert [found.copies for found in keeper.status()] == [(), ("pkcs11",)]
    deployment.check(deployment.other)
    with pytest.raises(ConfigurationError, match="--unseal pkcs11"):
        deployment.check()


def test_the_last_copy_of_a_generation_is_not_left(deployment: Deployment) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file)
        with pytest.raises(ConfigurationError, match="pkcs11 has no copy"):
            keeper.leave(deployment.file, stays=deployment.other)
    deployment.check()


# --- recovery ---------------------------------------------------------------------------------------


def test_a_lost_provider_is_survived(deployment: Deployment, shares: ShamirSettings) -> None:
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
        keeper.rotate(deployment.file)
    for path in deployment.folder.glob("unseal*.key"):
        path.unlink()
    with pytest.raises(ConfigurationError):
        deployment.check()
    with deployment.keeper(brought(shares, 1, 3)) as keeper:
        assert keeper.rotate(deployment.other) == 3
        for number in (1, 2):
            record = keeper.destroy(number, [deployment.other], told=["file", "recovery"])
            assert "file" in record.told
    deployment.check(deployment.other)


def test_any_enough_shares_recover_and_fewer_do_not(deployment: Deployment, shares: ShamirSettings) -> None:
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
    for numbers in ((1, 2), (3, 1), (2, 3), (1, 2, 3)):
        deployment.check(brought(shares, *numbers))
    for one in (1, 2, 3):
        with pytest.raises(ConfigurationError, match="2 shares are needed, and 1"):
            deployment.check(brought(shares, one))


def test_shares_stay_good_over_rotations(deployment: Deployment, shares: ShamirSettings) -> None:
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
        for _ in range(2):
            keeper.rotate(deployment.file)
    deployment.check(brought(shares, 1, 2))


def test_shares_that_were_made_again_replace_those_before(
    deployment: Deployment, shares: ShamirSettings, tmp_path: Path
) -> None:
    later = replace(shares, folder=tmp_path / "later")
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
        keeper.make_recovery(later)
        keeper.rotate(deployment.file)
        keeper.destroy(1, [deployment.file], told=["recovery"])
    deployment.check(brought(later, 1, 2))
    with pytest.raises(ConfigurationError, match="share of another"):
        deployment.check(brought(shares, 1, 2))


def test_a_recovery_copy_of_somebody_elses_making_opens_nothing(
    deployment: Deployment, shares: ShamirSettings
) -> None:
    """The recovery key is public: whoever writes the database seals a root key of his own to it."""
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
        recovery = None
        with deployment.host.store.begin() as tx:
            from cloister_host.unseal.recovery import recovery_of

            recovery = recovery_of(tx)
    theirs = seal_copy(RecoveryUnseal(shares, recovery), RootParts.draw("test"), check=False)
    forged = replace(theirs, deployment=deployment.name)
    with pytest.raises(ConfigurationError):
        open_copy(brought(shares, 1, 2), forged)


@pytest.mark.parametrize("position", [0, 40, 200, -100, -20, -1])
def test_a_changed_recovery_copy_does_not_open(
    deployment: Deployment, shares: ShamirSettings, position: int
) -> None:
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
    with deployment.host.store.begin() as tx:
        [copy] = copies_of(tx.execute, provider="recovery")
    changed = bytearray(copy.sealed)
    changed[position] ^= 1
    with pytest.raises(ConfigurationError):
        open_copy(brought(shares, 1, 2), replace(copy, sealed=bytes(changed)))


# --- crashes ----------------------------------------------------------------------------------------


@contextmanager
def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die at one write of the store, commit, or call of a provider; counts them."""
    count = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == step:
                raise CrashError
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("_write", "execute", "write_states"):
            patch.setattr(Tx, name, counted(getattr(Tx, name)))
        for name in ("wrap", "unwrap", "destroy", "renewed"):
            patch.setattr(FileUnseal, name, counted(getattr(FileUnseal, name)))
        yield count


def crash_everywhere(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> int:
    """Die at the first step, go on with a new process that dies at the second, ... until one gets through.

    After each crash a new process is the same deployment and opens everything; so does the host that serves.
    """
    step, crashes = 1, 0
    while True:
        with crash_at(step, monkeypatch):
            try:
                act()
            except CrashError:
                crashes += 1
            else:
                return crashes
        deployment.check()
        deployment.host.call(deployment.host.admin, "secret.put", secret=f"s{step}", value="v")
        step += 1


def test_a_rotation_and_a_destruction_survive_a_crash_at_every_step(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rotate() -> None:
        with deployment.keeper() as keeper:
            if keeper.rotate(deployment.file) != 2:
                pytest.fail("a crash began a generation too many")

    assert crash_everywhere(deployment, monkeypatch, rotate) > 10

    def destroy() -> None:
        with deployment.keeper() as keeper:
            keeper.destroy(1, [deployment.file])

    assert crash_everywhere(deployment, monkeypatch, destroy) > 5
    assert deployment.alive() == {2}
    assert [deployment.generation_of(tenant) for tenant in ("acme", "globex", "system")] == [2, 2, 2]


def test_a_move_survives_a_crash_at_every_step(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deployment.keeper() as keeper:
        keeper.rotate(deployment.file, deployment.other)

    def leave() -> None:
        with deployment.keeper(deployment.other) as keeper:
            keeper.destroy(1, [deployment.other, deployment.file])
            keeper.leave(deployment.file, stays=deployment.other)

    step = 1
    while True:
        with crash_at(step, monkeypatch):
            try:
                leave()
            except CrashError:
                pass
            else:
                break
        deployment.check(deployment.other)
        step += 1
    assert step > 5
    assert deployment.alive() == {2}


def test_a_recovery_survives_a_crash_at_every_step(
    deployment: Deployment, shares: ShamirSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deployment.keeper() as keeper:
        keeper.make_recovery(shares)
    (deployment.folder / "unseal.key").unlink()
    step = 1
    while True:
        with crash_at(step, monkeypatch):
            try:
                with deployment.keeper(brought(shares, 1, 2)) as keeper:
                    keeper.rotate(deployment.other)
            except CrashError:
                pass
            else:
                break
        deployment.check(brought(shares, 2, 3))
        step += 1
    assert step > 10
    deployment.check(deployment.other)


def test_two_rotations_at_once_make_one_generation(deployment: Deployment) -> None:
    with deployment.keeper() as first, deployment.keeper() as second:
        parts = second._parts
        assert first.rotate(deployment.file) == 2
        second._parts = parts
        with pytest.raises(ConfigurationError, match=re.escape("rotated meanwhile")):
            second._begin(1, [deployment.file])
    deployment.check()
    assert deployment.alive() == {1, 2}
