"""The root key is wrapped by a key that never leaves its token; a real SoftHSM answers (PROTOCOL 4)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.attestation.policy import AppraisalPolicy
from cloister.errors import ConfigurationError, UnavailableError
from cloister.secret import Secret
from cloister_host.app import build, initialize
from cloister_host.attester.settings import AttesterSettings
from cloister_host.functions.sandbox.choose import Level
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from cloister_host.store import Database
from cloister_host.unseal.pkcs11 import Pkcs11Unseal
from cloister_host.unseal.root import create_root, unseal_root
from cloister_host.unseal.settings import Pkcs11Settings
from support import softhsm
from support.commands import run

GUIDE = Path(__file__).parents[4] / "docs" / "unseal.md"
PLACE = "deployment/1"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pkcs11Settings:
    library = softhsm.library()
    (tmp_path / "hsm").mkdir()
    configuration = softhsm.configure(tmp_path / "hsm")
    softhsm.add_token(configuration, "one")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    pin = tmp_path / "hsm.pin"
    pin.touch(0o600)
    pin.write_text(softhsm.PIN + "\n")
    return Pkcs11Settings(module=library, token="one", pin_file=pin)


@contextmanager
def logged_in(settings: Pkcs11Settings) -> Iterator[Any]:
    import pkcs11

    library = pkcs11.lib(str(settings.module))
    with library.get_token(token_label=settings.token).open(rw=True, user_pin=softhsm.PIN) as session:
        yield session
    library.finalize()


def test_what_the_token_wrapped_it_unwraps(hsm: Pkcs11Settings) -> None:
    wrapped = Pkcs11Unseal.create(hsm).wrap(b"a root key", PLACE)
    assert b"a root key" not in wrapped
    assert Pkcs11Unseal(hsm).unwrap(wrapped, PLACE) == b"a root key"
    assert Pkcs11Unseal(hsm).wrap(b"a root key", PLACE) != wrapped


def test_the_root_key_of_a_hardware_host_needs_no_exception(hsm: Pkcs11Settings, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/host.db")
    database.migrate()
    created = create_root(database, Pkcs11Unseal.create(hsm), "hardware", accept_file_unseal=False)
    again = unseal_root(database, Pkcs11Unseal(hsm), "hardware", accept_file_unseal=False)
    database.close()
    assert again.deployment == created.deployment


def test_the_key_was_born_in_the_token_and_never_leaves_it(hsm: Pkcs11Settings) -> None:
    import pkcs11

    Pkcs11Unseal.create(hsm)
    with logged_in(hsm) as session:
        key = session.get_key(label=hsm.key)
        assert key[pkcs11.Attribute.LOCAL]
        assert key[pkcs11.Attribute.SENSITIVE]
        assert not key[pkcs11.Attribute.EXTRACTABLE]
        assert not key[pkcs11.Attribute.MODIFIABLE]
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


@pytest.mark.parametrize("weak", ["extractable", "imported", "short"])
def test_a_key_that_could_leave_its_token_is_refused(hsm: Pkcs11Settings, weak: str) -> None:
    import pkcs11

    with logged_in(hsm) as session:
        names = pkcs11.Attribute
        if weak == "imported":
            session.create_object(
                {
                    names.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                    names.KEY_TYPE: pkcs11.KeyType.AES,
                    names.LABEL: hsm.key,
                    names.TOKEN: True,
                    names.ENCRYPT: True,
                    names.DECRYPT: True,
                    names.SENSITIVE: True,
                    names.EXTRACTABLE: False,
                    names.VALUE: bytes(32),
                }
            )
        else:
            session.generate_key(
                pkcs11.KeyType.AES,
                128 if weak == "short" else 256,
                label=hsm.key,
                store=True,
                template={names.SENSITIVE: True, names.EXTRACTABLE: weak == "extractable"},
            )
    with pytest.raises(ConfigurationError, match="never leave"):
        Pkcs11Unseal(hsm).wrap(b"a root key", PLACE)
    with pytest.raises(ConfigurationError, match="already"):
        Pkcs11Unseal.create(hsm)


def test_two_keys_of_one_label_are_refused(hsm: Pkcs11Settings) -> None:
    import pkcs11

    Pkcs11Unseal.create(hsm)
    with logged_in(hsm) as session:
        session.generate_key(pkcs11.KeyType.AES, 256, label=hsm.key, store=True)
    with pytest.raises(ConfigurationError, match="more than one"):
        Pkcs11Unseal(hsm).wrap(b"a root key", PLACE)


def test_a_key_is_never_made_twice(hsm: Pkcs11Settings) -> None:
    wrapped = Pkcs11Unseal.create(hsm).wrap(b"a root key", PLACE)
    with pytest.raises(ConfigurationError, match="--hsm-key"):
        Pkcs11Unseal.create(hsm)
    assert Pkcs11Unseal(hsm).unwrap(wrapped, PLACE) == b"a root key"


def test_another_key_does_not_unwrap(hsm: Pkcs11Settings) -> None:
    wrapped = Pkcs11Unseal.create(hsm).wrap(b"a root key", PLACE)
    other = Pkcs11Unseal.create(replace(hsm, key="another"))
    with pytest.raises(ConfigurationError, match="does not unseal"):
        other.unwrap(wrapped, PLACE)


@pytest.mark.parametrize("position", [0, 11, 12, 20, -17, -16, -1])
def test_a_changed_byte_does_not_unwrap(hsm: Pkcs11Settings, position: int) -> None:
    changed = bytearray(Pkcs11Unseal.create(hsm).wrap(b"a root key", PLACE))
    changed[position] ^= 1
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Pkcs11Unseal(hsm).unwrap(bytes(changed), PLACE)


@pytest.mark.parametrize("length", [0, 1, 12, 27, 28, 29, 60])
def test_what_was_never_wrapped_does_not_unwrap(hsm: Pkcs11Settings, length: int) -> None:
    provider = Pkcs11Unseal.create(hsm)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        provider.unwrap(bytes(length), PLACE)


WRONG: list[tuple[Callable[[Pkcs11Settings], Pkcs11Settings], str]] = [
    (lambda hsm: replace(hsm, token="another"), "there is no token 'another'"),
    (lambda hsm: replace(hsm, key="another"), "no key 'another'"),
    (lambda hsm: replace(hsm, pin_file=None, pin=Secret(b"11111111")), "refuses the PIN"),
    (lambda hsm: replace(hsm, pin_file=None, pin=Secret(b"1")), "refuses the PIN"),
    (lambda hsm: replace(hsm, pin_file=None), "there is no PIN"),
    (lambda hsm: replace(hsm, pin_file=None, pin=Secret(b"\xff")), "there is no PIN"),
    (lambda hsm: replace(hsm, pin_file=Path("/nowhere")), "cannot be read"),
    (lambda hsm: replace(hsm, module=Path("/nowhere.so")), "cannot be loaded"),
    (lambda hsm: replace(hsm, module=Path("/etc/passwd")), "cannot be loaded"),
    (lambda hsm: replace(hsm, module=None), "--hsm-module"),
    (lambda hsm: replace(hsm, token=""), "--hsm-token"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_setting_is_named_and_shows_no_pin(
    hsm: Pkcs11Settings, change: Callable[[Pkcs11Settings], Pkcs11Settings], message: str
) -> None:
    Pkcs11Unseal.create(hsm)
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        Pkcs11Unseal(change(hsm)).wrap(b"a root key", PLACE)
    assert "11111111" not in str(caught.value)
    assert Pkcs11Unseal(hsm).wrap(b"a root key", PLACE)


def test_a_pin_file_that_others_can_read_is_refused(hsm: Pkcs11Settings) -> None:
    assert hsm.pin_file is not None
    hsm.pin_file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Pkcs11Unseal.create(hsm)


def test_settings_do_not_show_the_pin() -> None:
    assert "11111111" not in repr(Pkcs11Settings(token="one", pin=Secret(b"11111111")))


def test_a_token_that_does_not_answer_can_be_tried_again(
    hsm: Pkcs11Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pkcs11

    provider = Pkcs11Unseal.create(hsm)
    wrapped = provider.wrap(b"a root key", PLACE)

    def removed(_session: object, _label: str) -> None:
        raise pkcs11.DeviceRemoved

    monkeypatch.setattr(provider, "_key", removed)
    with pytest.raises(UnavailableError) as caught:
        provider.unwrap(wrapped, PLACE)
    assert caught.value.retryable


def test_what_was_wrapped_for_one_place_does_not_unwrap_in_another(hsm: Pkcs11Settings) -> None:
    wrapped = Pkcs11Unseal.create(hsm).wrap(b"a root key", PLACE)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Pkcs11Unseal(hsm).unwrap(wrapped, "deployment/2")


def test_a_renewed_key_is_another_one_and_can_be_destroyed_alone(hsm: Pkcs11Settings) -> None:
    first = Pkcs11Unseal.create(hsm)
    second = first.renewed()
    old, new = first.wrap(b"old", PLACE), second.wrap(b"new", PLACE)
    reopened = Pkcs11Unseal(hsm)
    assert (reopened.unwrap(old, PLACE), reopened.unwrap(new, PLACE)) == (b"old", b"new")
    assert reopened.destroy(old, PLACE)
    assert reopened.destroy(old, PLACE), "twice does no harm"
    with pytest.raises(ConfigurationError, match="no key"):
        reopened.unwrap(old, PLACE)
    assert reopened.unwrap(new, PLACE) == b"new"


def test_a_wrapped_root_key_names_keys_of_its_own_deployment_only(hsm: Pkcs11Settings) -> None:
    theirs = Pkcs11Unseal.create(replace(hsm, key="theirs"))
    wrapped = theirs.wrap(b"a root key", PLACE)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Pkcs11Unseal(hsm).destroy(wrapped, PLACE)
    assert theirs.unwrap(wrapped, PLACE) == b"a root key"


def test_no_session_stays_open(hsm: Pkcs11Settings) -> None:
    import pkcs11

    wrapped = Pkcs11Unseal.create(hsm).wrap(b"a root key", PLACE)
    with pytest.raises(ConfigurationError):
        Pkcs11Unseal(hsm).unwrap(wrapped[:-1], PLACE)
    assert not pkcs11._loaded[str(hsm.module)].initialized


def test_without_the_extra_the_error_names_it(hsm: Pkcs11Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigurationError, match=re.escape("cloister-host[hsm]")):
        Pkcs11Unseal(hsm)


# --- a host ---


@pytest.fixture
def settings(hsm: Pkcs11Settings, tmp_path: Path) -> HostSettings:
    sandboxes: frozenset[Level] = DEVELOPMENT_SANDBOXES
    return HostSettings(
        state=tmp_path / "state",
        attester=AttesterSettings(name="simulated"),
        unseal="pkcs11",
        pkcs11=hsm,
        accepted_sandboxes=sandboxes,
    )


def test_a_host_starts_from_the_token_and_attests_that_it_did(settings: HostSettings) -> None:
    initialize(settings)
    with build(settings) as host:
        assert host.keysets.keyset().config["unseal"] == "pkcs11"
    assert not settings.unseal_key.exists()


def test_without_its_token_a_host_does_not_start(settings: HostSettings, tmp_path: Path) -> None:
    initialize(settings)
    shutil.rmtree(tmp_path / "hsm" / "tokens")
    (tmp_path / "hsm" / "tokens").mkdir()
    with pytest.raises(ConfigurationError, match="no token"), build(settings):
        pytest.fail("it started")


def test_a_failed_init_leaves_nothing_that_stops_the_next(settings: HostSettings) -> None:
    with pytest.raises(ConfigurationError, match="no token"):
        initialize(replace(settings, pkcs11=replace(settings.pkcs11, token="another")))
    initialize(settings)


def test_a_second_init_makes_no_key_that_opens_nothing(settings: HostSettings) -> None:
    initialize(settings)
    another = replace(settings.pkcs11, key="another")
    with pytest.raises(ConfigurationError, match="already"):
        initialize(replace(settings, pkcs11=another))
    Pkcs11Unseal.create(another)


def test_another_provider_is_told_which_one_sealed(settings: HostSettings) -> None:
    initialize(settings)
    with pytest.raises(ConfigurationError, match="--unseal pkcs11"), build(replace(settings, unseal="file")):
        pytest.fail("it started")


@pytest.mark.parametrize("start", [initialize, lambda settings: build(settings).__enter__()])
def test_an_unknown_provider_is_refused(
    settings: HostSettings, start: Callable[[HostSettings], object]
) -> None:
    settings.state.mkdir()
    with pytest.raises(ConfigurationError, match="no unseal provider 'paper'"):
        start(replace(settings, unseal="paper"))


# --- the commands ---


def test_the_commands_of_the_guide_do_what_it_says(hsm: Pkcs11Settings, tmp_path: Path) -> None:
    section = GUIDE.read_text().split("## pkcs11")[1].split("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (tmp_path / "hsm.pin").write_text("9876543210")
    for line in block.splitlines():
        command = shlex.split(line.replace("/usr/lib/softhsm/libsofthsm2.so", str(hsm.module)))
        run(command, tmp_path)
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_text())
    assert policy.config["unseal"] == ("pkcs11",)


def test_the_pin_may_come_from_the_environment(hsm: Pkcs11Settings, tmp_path: Path) -> None:
    options = f"--attester simulated --unseal pkcs11 --hsm-module {hsm.module} --hsm-token one"
    command = ["cloister", "host", "init", *options.split()]
    done = run(command, tmp_path, CLOISTER_HSM_PIN="11111111", fails=True)
    assert "refuses the PIN" in done.stderr
    assert "11111111" not in done.stderr + done.stdout
    run(command, tmp_path, CLOISTER_HSM_PIN=softhsm.PIN)


def test_the_pin_does_not_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloister_host._cli._unseal import hsm_settings

    monkeypatch.setenv("CLOISTER_HSM_PIN", "11111111")
    taken = hsm_settings(None, "one", "key", None)
    assert "CLOISTER_HSM_PIN" not in os.environ
    assert taken.pin == Secret(b"11111111")
