"""SnapStart: what was drawn before the snapshot is not used after it."""

from __future__ import annotations

import pytest

from cloister.envelope import process
from cloister.errors import ConfigurationError
from cloister.faas import shared
from cloister_aws import confidential, s3, snapshot
from local_cloud.lambda_runtime import LambdaRuntime

HANDLER = """
import os
from cloister.envelope import process
from cloister.faas import shared
from cloister_aws import confidential, snapshot

before = process.epoch()

class Client:
    closed = False
    def close(self):
        self.closed = True

initialised = shared._shared.client = Client()

@confidential("credit-forecast@prod")
def handler(event, context, *, enclave):
    return {
        "closed": initialised.closed,
        "forgotten": shared._shared.client is None,
        "another life": process.epoch() is not before,
    }
"""


def test_the_real_runtime_calls_the_hooks(tmp_path):
    (tmp_path / "app.py").write_text(HANDLER)
    for kind, dropped in (("snap-start", True), ("on-demand", False)):
        environment = {"AWS_LAMBDA_INITIALIZATION_TYPE": kind}
        with LambdaRuntime("app.handler", directory=tmp_path, environment=environment) as function:
            result = function.invoke({})
        assert result.error is None, result.error
        assert result.payload == dict.fromkeys(("closed", "forgotten", "another life"), dropped)


@pytest.fixture
def hooks(monkeypatch):
    import snapshot_restore_py

    registered = {"before": [], "after": []}
    monkeypatch.setattr(snapshot_restore_py, "register_before_snapshot", registered["before"].append)
    monkeypatch.setattr(snapshot_restore_py, "register_after_restore", registered["after"].append)
    snapshot.register.cache_clear()
    yield registered
    snapshot.register.cache_clear()


def test_the_hooks_are_registered_once_however_many_handlers_there_are(hooks):
    for _ in range(2):
        confidential("f@prod")(lambda event, context, *, enclave: None)
    assert hooks == {"before": [snapshot.before_snapshot], "after": [snapshot.after_restore]}


@pytest.mark.parametrize("hook", [snapshot.before_snapshot, snapshot.after_restore])
def test_each_hook_drops_data_keys_and_client(hook, monkeypatch):
    closed = []

    class Client:
        def close(self):
            closed.append(self)

    monkeypatch.setattr(shared, "_shared", shared._Shared())
    shared._shared.client = client = Client()
    life = process.epoch()
    hook()
    assert closed == [client]
    assert shared._shared.client is None
    assert process.epoch() is not life


def test_a_snapshot_holds_no_client_of_s3(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    before = s3._default_client()
    assert s3._default_client() is before
    snapshot.before_snapshot()
    assert s3._default_client() is not before
    s3._default_client.cache_clear()


def openssl(monkeypatch, lib):
    from cryptography.hazmat.bindings.openssl import binding

    class Binding:
        pass

    Binding.lib = lib
    monkeypatch.setattr(binding, "Binding", Binding)


def test_openssl_gets_fresh_randomness_of_each_copy(monkeypatch):
    seeds = []

    class Lib:
        @staticmethod
        def RAND_add(seed, length, entropy):  # noqa: N802 - OpenSSL's name
            seeds.append((seed, length, entropy))

        @staticmethod
        def RAND_status():  # noqa: N802 - OpenSSL's name
            return 1

    openssl(monkeypatch, Lib)
    snapshot.after_restore()
    snapshot.after_restore()
    assert all((len(seed), length, entropy) == (48, 48, 48.0) for seed, length, entropy in seeds)
    assert seeds[0][0] != seeds[1][0]


def test_a_copy_whose_generator_cannot_be_reseeded_does_not_start(monkeypatch):
    openssl(monkeypatch, object())
    with pytest.raises(ConfigurationError, match="reseeded"):
        snapshot.after_restore()
