"""A host with a real witness over HTTP: clients see cosigned heads, and a rollback stops the host itself."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from cloister import Client, jose
from cloister._cli.root import build
from cloister._cli.witness import SeenFile, Server
from cloister.errors import LogError, UnavailableError
from cloister.receipts.witness import COSIGNATURE, LOG, Cosigner, NoteKey
from cloister_host.audit.witness import HttpWitness
from cloister_host.services import build_services
from cloister_host.store import Store
from cloister_host.testing import embedded_host
from support.host_world import HostWorld


class Witness:
    """A witness that is started before it knows which log it watches."""

    def __init__(self, folder):
        self.private = Ed25519PrivateKey.generate()
        public = self.private.public_key().public_bytes_raw()
        self.key = NoteKey(name="witness.example", algorithm=COSIGNATURE, public=public)
        self.seen = SeenFile(folder / "seen.json")
        self.server = Server(("127.0.0.1", 0), Cosigner(self.key, self.private, [], self.seen))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def watch(self, key):
        self.server.cosigner = Cosigner(self.key, self.private, [key], self.seen)


@pytest.fixture
def witness(tmp_path):
    with served(Witness(tmp_path)) as witness:
        yield witness


@contextmanager
def served(witness):
    thread = threading.Thread(target=witness.server.serve_forever)
    thread.start()
    try:
        yield witness
    finally:
        witness.server.shutdown()
        thread.join()
        witness.server.server_close()


def client(host, key, **settings):
    return Client.from_env(
        url=host.url,
        tenant="acme",
        policy=str(host.policy),
        api_key_file=str(key),
        identity="key",
        **settings,
    )


def test_clients_see_cosigned_heads_only_and_the_host_finds_its_own_rollback(witness, tmp_path):
    directory, copy = tmp_path / "host", tmp_path / "copy"
    with embedded_host(directory) as host:
        witness.watch(host.host.services.log.note_key)
        key = host.tenant("acme").key_file("admin")
    shutil.copytree(directory / "state", copy)
    how = (witness.url, str(witness.key))
    with embedded_host(directory, witness=how) as host, client(host, key, witness=str(witness.key)) as admin:
        assert host.host.keysets.keyset().config["log"]["witness"] == str(witness.key)
        first = admin.call("key.create", {"key": "k", "purpose": "seal"})
        assert first["kid"] == "k.1"
        size, deadline = admin.tree_head.size, time.monotonic() + 20
        while admin.tree_head.size == size:
            assert time.monotonic() < deadline
            admin.call("key.list", {})
            time.sleep(0.1)
        assert not any("no witness" in line for line in admin.attest().not_checked)
        other = Witness(tmp_path)
        other.server.server_close()
        with client(host, key, witness=str(other.key)) as elsewhere, pytest.raises(LogError):
            elsewhere.call("key.list", {})
    shutil.rmtree(directory / "state")
    shutil.copytree(copy, directory / "state")
    # The host that comes up over the old database learns from the witness that there was more.
    with (
        embedded_host(directory, witness=how) as host,
        client(host, key) as admin,
        pytest.raises(UnavailableError, match="changed outside the host"),
    ):
        admin.call("key.list", {})


def test_without_its_witness_a_host_shows_no_head_and_so_answers_nothing(witness, tmp_path):
    with embedded_host(tmp_path / "host") as host:
        key = host.tenant("acme").key_file("admin")
    # Not told of this log, the witness refuses: as good as gone.
    with (
        embedded_host(tmp_path / "host", witness=(witness.url, str(witness.key))) as host,
        client(host, key) as admin,
        pytest.raises(UnavailableError, match="witness"),
    ):
        admin.call("key.list", {})


def test_the_commands_make_a_key_and_name_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    made = run(build({}, {}), ["witness", "create", "witness.example", "--key", "witness.key"])
    key = NoteKey.parse(made.stdout, algorithm=COSIGNATURE)
    kept = json.loads((tmp_path / "witness.key").read_text())
    private = Ed25519PrivateKey.from_private_bytes(jose.b64url_decode(kept["key"]))
    assert key.public == private.public_key().public_bytes_raw()
    with embedded_host(tmp_path / "host") as host:
        tenant = host.tenant()
        named = run(build({}, {}), ["witness", "log"], env=tenant.environment("admin"))
        assert NoteKey.parse(named.stdout, algorithm=LOG) == host.host.services.log.note_key
        tenant.admin.close()
    for arguments in (
        ["create", "two words", "--key", "other.key"],
        ["serve", "--key", "none", "--seen", "s", "--log", str(key)],
        ["serve", "--key", "witness.key", "--seen", "s", "--log", str(key)],
        ["serve", "--key", "witness.key", "--seen", "s", "--log", "x", "--listen", "nowhere"],
    ):
        assert run(build({}, {}), ["witness", *arguments]).exit_code == 1


def test_a_replica_whose_head_is_behind_the_witness_looks_into_the_store(witness, tmp_path):
    world = HostWorld(tmp_path)
    other = build_services(Store(f"sqlite:///{world.path}", world.root.row_keys()), world.root, world.clock)
    other.log.open(HttpWitness(witness.url, str(witness.key)))  # refused: it is not watched yet
    witness.watch(world.services.log.note_key)
    world.services.log.open(HttpWitness(witness.url, str(witness.key)))
    with world.store.begin() as tx:
        world.services.audit.record(tx, world.admin, act="act", resource="x")
    world.services.log.sequence()
    world.services.log.cosign()
    other.log.cosign()
    other.log.require_intact()
    with world.store.begin() as tx:
        parts = [
            services.log.for_reply(tx, 0).split(b'"head":"')[1][:700] for services in (world.services, other)
        ]
    assert parts[0].split(b'"')[0] == parts[1].split(b'"')[0]
    other.store.close()
    world.close()
