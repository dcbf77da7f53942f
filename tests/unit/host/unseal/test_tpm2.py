"""The root key is sealed to the boot state of a TPM; a real `swtpm` answers (PROTOCOL 4)."""

from __future__ import annotations

import json
import re
import shlex
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.attestation.policy import AppraisalPolicy
from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister_host.app import build, initialize
from cloister_host.attester import tpm_client
from cloister_host.attester.settings import AttesterSettings
from cloister_host.attester.tpm_client import TpmSocket
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from cloister_host.unseal import tpm2 as module
from cloister_host.unseal.settings import Tpm2Settings
from cloister_host.unseal.tpm2 import Tpm2Unseal
from cloister_host.unseal.tpm_session import Session
from cloister_host.unseal.wrapped import Wrapped
from support.commands import run
from support.tee_doubles import software_tpm

GUIDE = Path(__file__).parents[4] / "docs" / "unseal.md"
PLACE = "deployment/1"
ROOT = b"a root key and all that goes with it"
_EXTEND, _NV_READ_PUBLIC, _NV_READ = 0x182, 0x169, 0x14E


class Tpm:
    """A software TPM, and what somebody with access to it can do."""

    def __init__(self, folder: Path, connect: Callable[[], TpmSocket]) -> None:
        self.connect = connect
        self.settings = Tpm2Settings(device=folder / "tpm.sock", pcrs=(4, 7))

    def extend(self, index: int, what: bytes) -> None:
        digest = what.ljust(32, b"\0")
        with closing(self.connect()) as transport:
            parameters = struct.pack(">IH", 1, 0x0B) + digest
            tpm_client.command(transport, _EXTEND, handle=index, parameters=parameters)

    def state(self, path: Path) -> Path:
        """This machine's PCRs, as its evidence holds them."""
        with closing(self.connect()) as transport:
            pcrs = {str(index): tpm_client.pcr_read(transport, index).hex() for index in range(16)}
        path.write_text(json.dumps({"v": 1, "pcrs": pcrs}))
        return path


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Tpm]:
    folder = tmp_path / "tpm"
    folder.mkdir()
    with software_tpm(folder) as connect:
        yield Tpm(folder, connect)


def test_what_was_wrapped_unwraps_in_the_same_state(tpm: Tpm) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    assert ROOT not in wrapped
    assert Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE) == ROOT
    assert Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE) != wrapped


def test_another_boot_state_does_not_unwrap_and_the_pcr_is_named(tpm: Tpm) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    tpm.extend(7, b"another image")
    with pytest.raises(ConfigurationError, match=r"another boot state .*: PCR 7"):
        Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE)


def test_a_pcr_that_is_not_named_may_change(tpm: Tpm) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    tpm.extend(10, b"a measured file")
    assert Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE) == ROOT


def test_the_tpm_itself_refuses_another_boot_state(tpm: Tpm) -> None:
    """Also when what is stored beside the key says that this state is accepted."""
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    tpm.extend(7, b"another image")
    found = Wrapped.parse(wrapped, provider="tpm2")
    with closing(tpm.connect()) as transport:
        now = {index: tpm_client.pcr_read(transport, index) for index in (4, 7)}
    forged = msgspec.structs.replace(found, handle=msgspec.msgpack.encode(module._Handle((now,))))
    with pytest.raises(CloisterError, match=r"does not give out|refused"):
        Tpm2Unseal(tpm.settings).unwrap(msgspec.msgpack.encode(forged), PLACE)


def test_a_pcr_that_changes_between_policy_and_reading_is_noticed(
    tpm: Tpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    run_command = Session.run

    def late(session: Any, code: int, **arguments: Any) -> bytes:
        parameters = struct.pack(">IH", 1, 0x0B) + bytes(32)
        tpm_client.command(session.transport, _EXTEND, handle=4, parameters=parameters)
        return bytes(run_command(session, code, **arguments))

    monkeypatch.setattr(Session, "run", late)
    with pytest.raises(ConfigurationError, match="extended since the boot"):
        Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE)


def test_the_next_image_is_accepted_before_it_runs(tpm: Tpm, tmp_path: Path) -> None:
    here = tpm.state(tmp_path / "here.json")
    tpm.extend(4, b"the next image")
    after = tpm.state(tmp_path / "next.json")
    assert here.read_text() != after.read_text()
    # Sealed on the image that runs now (in this test the later one), for both.
    wrapped = Tpm2Unseal(replace(tpm.settings, accept=(here,))).wrap(ROOT, PLACE)
    assert Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE) == ROOT
    tpm.extend(4, b"neither of the two")
    with pytest.raises(ConfigurationError, match="another boot state"):
        Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE)


def test_an_accepted_image_that_is_booted_unwraps(tmp_path: Path) -> None:
    """The same TPM after a reboot: its PCRs begin anew, what is in its memory stays."""
    folder = tmp_path / "tpm"
    folder.mkdir()
    with software_tpm(folder) as connect:
        tpm = Tpm(folder, connect)
        tpm.extend(4, b"the next image")
        upcoming = tpm.state(tmp_path / "next.json")
    with software_tpm(folder) as connect:
        tpm = Tpm(folder, connect)
        tpm.extend(4, b"this image")
        alone = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
        both = Tpm2Unseal(replace(tpm.settings, accept=(upcoming,))).wrap(ROOT, PLACE)
    with software_tpm(folder) as connect:
        tpm = Tpm(folder, connect)
        tpm.extend(4, b"the next image")
        assert Tpm2Unseal(tpm.settings).unwrap(both, PLACE) == ROOT
        with pytest.raises(ConfigurationError, match="another boot state"):
            Tpm2Unseal(tpm.settings).unwrap(alone, PLACE)


def test_another_tpm_does_not_unwrap(tpm: Tpm, tmp_path: Path) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    (tmp_path / "other").mkdir()
    with software_tpm(tmp_path / "other"):
        elsewhere = replace(tpm.settings, device=tmp_path / "other" / "tpm.sock")
        with pytest.raises(ConfigurationError, match="has no key at"):
            Tpm2Unseal(elsewhere).unwrap(wrapped, PLACE)


def test_an_index_that_was_put_in_its_place_is_not_read(tpm: Tpm) -> None:
    """Whoever owns the TPM can put another key there, for all to read; it is not the one that was named."""
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    Tpm2Unseal(tpm.settings).destroy(wrapped, PLACE)
    index = int(Wrapped.parse(wrapped, provider="tpm2").key, 16)
    from support.tpm_provisioning import write_nv

    with closing(tpm.connect()) as transport:
        write_nv(transport, index, bytes(32))
    with pytest.raises(CloisterError):
        Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE)


def test_what_is_destroyed_never_unwraps_again(tpm: Tpm) -> None:
    provider = Tpm2Unseal(tpm.settings)
    old, new = provider.wrap(b"old", PLACE), provider.renewed().wrap(b"new", PLACE)
    assert provider.destroy(old, PLACE)
    assert provider.destroy(old, PLACE), "twice does no harm"
    with pytest.raises(ConfigurationError, match="has no key at"):
        provider.unwrap(old, PLACE)
    assert provider.unwrap(new, PLACE) == b"new"


def test_whoever_listens_to_the_bus_learns_nothing(tpm: Tpm, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = bytearray()
    keys: list[bytes] = []
    transmit, read = TpmSocket.transmit, module._read

    def listened(self: TpmSocket, command: bytes) -> bytes:
        response = transmit(self, command)
        seen.extend(command + response)
        return response

    def kept(*arguments: Any) -> bytes:
        keys.append(read(*arguments))
        return keys[-1]

    monkeypatch.setattr(TpmSocket, "transmit", listened)
    monkeypatch.setattr(module, "_read", kept)
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    assert Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE) == ROOT
    [key] = keys
    assert struct.pack(">I", 0x137) in seen, "it was written over this bus"
    assert key[:8] not in seen
    assert key[-8:] not in seen


def test_nobody_reads_the_key_without_its_policy(tpm: Tpm) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    index = int(Wrapped.parse(wrapped, provider="tpm2").key, 16)
    with closing(tpm.connect()) as transport:
        for who in (0x40000001, index):
            with pytest.raises(UnavailableError, match="refused"):
                tpm_client.command(
                    transport,
                    _NV_READ,
                    handle=who,
                    handles=(index,),
                    parameters=struct.pack(">HH", 32, 0),
                )


def test_a_tpm_in_between_that_answers_by_itself_is_noticed(
    tpm: Tpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    transmit = TpmSocket.transmit

    def changed(self: TpmSocket, command: bytes) -> bytes:
        response = transmit(self, command)
        if command[6:10] == struct.pack(">I", _NV_READ):
            response = response[:20] + bytes([response[20] ^ 1]) + response[21:]
        return response

    monkeypatch.setattr(TpmSocket, "transmit", changed)
    with pytest.raises(UnavailableError, match="not the TPM"):
        Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE)


@pytest.mark.parametrize("position", [0, 1, 10, 30, 60, -60, -17, -1])
def test_a_changed_byte_does_not_unwrap(tpm: Tpm, position: int) -> None:
    changed = bytearray(Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE))
    changed[position] ^= 1
    with pytest.raises(CloisterError):
        Tpm2Unseal(tpm.settings).unwrap(bytes(changed), PLACE)


def test_what_was_wrapped_for_one_place_does_not_unwrap_in_another(tpm: Tpm) -> None:
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Tpm2Unseal(tpm.settings).unwrap(wrapped, "deployment/2")


def test_nothing_stays_in_the_memory_of_the_tpm(tpm: Tpm) -> None:
    """Sessions and keys are flushed also when something fails: swtpm has room for three of each."""
    wrapped = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    for _ in range(4):
        assert Tpm2Unseal(tpm.settings).unwrap(wrapped, PLACE) == ROOT
    other = Tpm2Unseal(tpm.settings).wrap(ROOT, PLACE)
    Tpm2Unseal(tpm.settings).destroy(other, PLACE)
    for _ in range(4):
        with pytest.raises(ConfigurationError, match="has no key at"):
            Tpm2Unseal(tpm.settings).unwrap(other, PLACE)


@given(handle=st.binary(max_size=200) | st.just(b"\x91" * 4000))
@settings(max_examples=100, deadline=None)
def test_random_states_are_refused_before_the_tpm_is_asked(handle: bytes) -> None:
    wrapped = Wrapped.seal(bytes(32), ROOT, provider="tpm2", name="0x1812345", place=PLACE, handle=handle)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Tpm2Unseal(Tpm2Settings(device=Path("/nowhere"))).unwrap(wrapped, PLACE)


@pytest.mark.parametrize("name", ["", "x", "0x1c00002", "0x01812345", "25240389", "0X1812345", "-0x1812345"])
def test_a_wrapped_root_key_names_indices_of_an_owner_only(name: str) -> None:
    handle = msgspec.msgpack.encode(module._Handle(({7: bytes(32)},)))
    wrapped = Wrapped.seal(bytes(32), ROOT, provider="tpm2", name=name, place=PLACE, handle=handle)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Tpm2Unseal(Tpm2Settings(device=Path("/nowhere"))).destroy(wrapped, PLACE)


@pytest.mark.parametrize("pcrs", [(), (24,), (-1,), (7, 100)])
def test_pcrs_that_make_no_sense_are_refused(pcrs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="make no sense"):
        Tpm2Unseal(Tpm2Settings(pcrs=pcrs))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pcrs": {"4": "00"}}', '{"pcrs": 1}', "[" * 5000])
def test_a_file_without_the_pcrs_is_named(tpm: Tpm, tmp_path: Path, content: str) -> None:
    (tmp_path / "next.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"next\.json does not hold the PCRs 4, 7"):
        Tpm2Unseal(replace(tpm.settings, accept=(tmp_path / "next.json",))).wrap(ROOT, PLACE)


def test_a_missing_tpm_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        Tpm2Unseal(Tpm2Settings(device=tmp_path / "tpm.sock")).wrap(ROOT, PLACE)
    assert caught.value.retryable


# --- a host ---


def test_a_host_starts_from_its_tpm_and_attests_that_it_did(tpm: Tpm, tmp_path: Path) -> None:
    started = HostSettings(
        state=tmp_path / "state",
        attester=AttesterSettings(name="simulated"),
        unseal="tpm2",
        tpm2=tpm.settings,
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
    )
    initialize(started)
    with build(started) as host:
        assert host.keysets.keyset().config["unseal"] == "tpm2"
    tpm.extend(4, b"another image")
    with pytest.raises(ConfigurationError, match="another boot state"), build(started):
        pytest.fail("it started")


def test_the_commands_of_the_guide_do_what_it_says(tpm: Tpm, tmp_path: Path) -> None:
    section = GUIDE.read_text().split("## tpm2")[1].split("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    for line in block.splitlines():
        run(shlex.split(line.replace("/dev/tpmrm0", str(tpm.settings.device))), tmp_path)
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_text())
    assert policy.config["unseal"] == ("tpm2",)


@pytest.mark.parametrize("option", ["paper=1", "tpm-pcrs", "tpm-pcrs=x", "tpm-pcrs="])
def test_an_option_that_makes_no_sense_is_named(tmp_path: Path, option: str) -> None:
    command = ["cloister", "host", "init", "--attester", "simulated", "--unseal", "tpm2"]
    done = run([*command, "--unseal-option", option], tmp_path, fails=True)
    assert "tpm-pcrs=" in done.stderr or "NAME=VALUE" in done.stderr
    assert not (tmp_path / ".cloister").exists()
