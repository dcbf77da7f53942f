"""Enough operators together unseal the root key, and fewer do not (PROTOCOL 4)."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.attestation.policy import AppraisalPolicy
from cloister.errors import ConfigurationError
from cloister_host.app import build, initialize
from cloister_host.attester.settings import AttesterSettings
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from cloister_host.store import Database
from cloister_host.unseal.root import create_root, unseal_root
from cloister_host.unseal.settings import ShamirSettings
from cloister_host.unseal.shamir import ShamirUnseal
from support import require
from support.commands import run

GUIDE = Path(__file__).parents[4] / "docs" / "unseal.md"
PLACE = "deployment/1"
ROOT = b"a root key, sealed"
# 2 of 3, 256 bits; trezor/python-shamir-mnemonic, vectors.json, MIT licence.
PUBLISHED = """
humidity disease academic always aluminum jewelry energy woman receiver strategy amuse duckling
lying evidence network walnut tactics forget hairy rebound impulse brother survive clothes stadium
mailman rival ocean reward venture always armed unwrap

humidity disease academic agency actress jacket gross physics cylinder solution fake mortgage
benefit public busy prepare sharp friar change work slow purchase ruler again tricycle involve viral
wireless mixture anatomy desert cargo upgrade
"""


@pytest.fixture(autouse=True)
def _library() -> None:
    require.module("shamir_mnemonic", install="pip install shamir-mnemonic")


@pytest.fixture
def split(tmp_path: Path) -> ShamirSettings:
    return ShamirSettings(shares=5, threshold=3, folder=tmp_path / "shares")


def brought(split: ShamirSettings, *numbers: int) -> ShamirUnseal:
    return ShamirUnseal(replace(split, files=tuple(split.paths[number - 1] for number in numbers)))


def words(path: Path) -> list[str]:
    return path.read_text().splitlines()[-1].split()


def test_any_three_of_five_unwrap(split: ShamirSettings) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    for numbers in itertools.permutations(range(1, 6), 3):
        assert brought(split, *numbers).unwrap(wrapped, PLACE) == ROOT


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4), (5, 4, 3, 2, 1)])
def test_more_than_are_needed_do_no_harm(split: ShamirSettings, numbers: tuple[int, ...]) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    assert brought(split, *numbers).unwrap(wrapped, PLACE) == ROOT


@given(
    numbers=st.integers(2, 16).flatmap(lambda shares: st.tuples(st.just(shares), st.integers(2, shares))),
    root=st.binary(max_size=200),
    choose=st.randoms(use_true_random=False),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_split_comes_together_again(
    tmp_path_factory: pytest.TempPathFactory, numbers: tuple[int, int], root: bytes, choose: Any
) -> None:
    shares, threshold = numbers
    folder = tmp_path_factory.mktemp("split") / "shares"
    split = ShamirSettings(shares=shares, threshold=threshold, folder=folder)
    wrapped = ShamirUnseal.create(split).wrap(root, PLACE)
    some = choose.sample(range(1, shares + 1), threshold)
    assert brought(split, *some).unwrap(wrapped, PLACE) == root
    with pytest.raises(ConfigurationError, match="are needed"):
        brought(split, *some[1:]).unwrap(wrapped, PLACE)


@pytest.mark.parametrize("numbers", [(), (1,), (2, 5)])
def test_too_few_shares_do_not_unwrap(split: ShamirSettings, numbers: tuple[int, ...]) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    with pytest.raises(ConfigurationError, match=f"3 shares are needed, and {len(numbers)}"):
        brought(split, *numbers).unwrap(wrapped, PLACE)


def test_the_same_share_twice_is_named(split: ShamirSettings, tmp_path: Path) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    copy = tmp_path / "copy.txt"
    copy.touch(0o600)
    copy.write_text("  ".join(words(split.paths[0])).upper())
    files = (split.paths[0], split.paths[1], copy)
    with pytest.raises(ConfigurationError, match=re.escape(f"{copy} is the same share as {files[0]}")):
        ShamirUnseal(replace(split, files=files)).unwrap(wrapped, PLACE)


def test_a_share_of_another_root_key_is_named(split: ShamirSettings, tmp_path: Path) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    other = replace(split, folder=tmp_path / "other")
    ShamirUnseal.create(other).wrap(ROOT, PLACE)
    files = (*split.paths[:2], other.paths[3])
    with pytest.raises(ConfigurationError, match=re.escape(f"{files[-1]} is a share of another")):
        ShamirUnseal(replace(split, files=files)).unwrap(wrapped, PLACE)


@pytest.mark.parametrize("content", ["", "# only a title", "word", "academic " * 33, "é", "a" * 10_000])
def test_what_is_no_share_is_refused_and_not_shown(split: ShamirSettings, content: str) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    split.paths[1].write_text(content)
    with pytest.raises(ConfigurationError, match=r"share-2\.txt is no share") as caught:
        brought(split, 1, 2, 3).unwrap(wrapped, PLACE)
    assert "academic" not in str(caught.value)


@pytest.mark.parametrize("position", [0, 3, 10, 32])
def test_a_mistyped_word_is_noticed(split: ShamirSettings, position: int) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    mistyped = words(split.paths[1])
    mistyped[position] = "zero" if mistyped[position] != "zero" else "academic"
    split.paths[1].write_text(" ".join(mistyped))
    with pytest.raises(ConfigurationError, match="a word of it was changed") as caught:
        brought(split, 1, 2, 3).unwrap(wrapped, PLACE)
    assert mistyped[1] not in str(caught.value).split()


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_share_that_others_can_read_is_refused(split: ShamirSettings, mode: int) -> None:
    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    split.paths[0].chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        brought(split, 1, 2, 3).unwrap(wrapped, PLACE)


def test_shares_are_their_owners_alone(split: ShamirSettings) -> None:
    ShamirUnseal.create(split).wrap(ROOT, PLACE)
    assert split.folder.stat().st_mode & 0o777 == 0o700
    assert sorted(split.folder.iterdir()) == list(split.paths)
    assert {path.stat().st_mode & 0o777 for path in split.paths} == {0o600}
    assert len({path.read_text() for path in split.paths}) == 5


def test_neither_the_key_nor_a_share_stands_in_what_is_stored(split: ShamirSettings) -> None:
    import shamir_mnemonic

    wrapped = ShamirUnseal.create(split).wrap(ROOT, PLACE)
    texts = [" ".join(words(path)) for path in split.paths]
    key = shamir_mnemonic.combine_mnemonics(texts[:3])
    values = [shamir_mnemonic.Share.from_mnemonic(text).value for text in texts]
    everything = wrapped + b"".join(_bytes_of(msgspec.json.decode(wrapped)))
    for secret in (key, *values, *(text.encode() for text in texts), ROOT):
        assert secret not in everything
        assert secret.hex().encode() not in everything


def _bytes_of(value: Any) -> list[bytes]:
    import base64
    import binascii

    match value:
        case dict():
            return [part for item in value.values() for part in _bytes_of(item)]
        case list():
            return [part for item in value for part in _bytes_of(item)]
        case str():
            try:
                return [base64.b64decode(value)]
            except binascii.Error:
                return []
        case _:
            return []


CHANGES: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("sealed", lambda it: it.update(sealed="AAAA" + it["sealed"][4:])),
    ("nonce", lambda it: it.update(nonce="AAAAAAAAAAAAAAAA")),
    ("short nonce", lambda it: it.update(nonce="AAAA")),
    ("no share", lambda it: it["split"]["shares"].pop()),
    ("higher threshold", lambda it: it["split"].update(threshold=2)),
    ("threshold of text", lambda it: it["split"].update(threshold="3")),
    ("more", lambda it: it.update(more=1)),
]


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_a_changed_sealed_root_does_not_unwrap(
    split: ShamirSettings, change: Callable[[dict[str, Any]], Any]
) -> None:
    document = msgspec.json.decode(ShamirUnseal.create(split).wrap(ROOT, PLACE))
    change(document)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        brought(split, 1, 2, 3).unwrap(msgspec.json.encode(document), PLACE)


@pytest.mark.parametrize("threshold", [-1, 0, 1, 2])
def test_a_threshold_that_was_lowered_does_not_unwrap(split: ShamirSettings, threshold: int) -> None:
    document = msgspec.json.decode(ShamirUnseal.create(split).wrap(ROOT, PLACE))
    document["split"]["threshold"] = threshold
    with pytest.raises(ConfigurationError, match="does not unseal"):
        brought(split, 1, 2).unwrap(msgspec.json.encode(document), PLACE)


@given(wrapped=st.binary(max_size=300) | st.just(b"[" * 20_000))
@settings(max_examples=60, deadline=None)
def test_random_bytes_do_not_unwrap(wrapped: bytes) -> None:
    with pytest.raises(ConfigurationError, match="does not unseal"):
        ShamirUnseal(ShamirSettings()).unwrap(wrapped, PLACE)


@pytest.mark.parametrize(("threshold", "shares"), [(1, 1), (1, 5), (0, 5), (6, 5), (2, 17), (-1, -1)])
def test_numbers_that_make_no_sense_are_refused(split: ShamirSettings, threshold: int, shares: int) -> None:
    with pytest.raises(ConfigurationError, match="make no sense"):
        ShamirUnseal.create(replace(split, threshold=threshold, shares=shares))
    assert not split.folder.exists()


def test_a_folder_with_something_in_it_is_left_alone(split: ShamirSettings) -> None:
    ShamirUnseal.create(split).wrap(ROOT, PLACE)
    before = [path.read_bytes() for path in split.paths]
    with pytest.raises(ConfigurationError, match="not empty"):
        ShamirUnseal.create(split)
    assert [path.read_bytes() for path in split.paths] == before


def test_a_share_that_cannot_be_written_leaves_none_behind(
    split: ShamirSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    provider = ShamirUnseal.create(split)
    syncs = iter([None, None, OSError(errno.ENOSPC, "No space left on device")])

    def full(_descriptor: int) -> None:
        if error := next(syncs):
            raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="share 3 cannot be made"):
        provider.wrap(ROOT, PLACE)
    assert not list(split.folder.iterdir())


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shamir_mnemonic", None)
    with pytest.raises(ConfigurationError, match=re.escape("cloister-host[shamir]")):
        ShamirUnseal(ShamirSettings())


def test_the_library_agrees_with_the_published_vector() -> None:
    import shamir_mnemonic

    shares = [" ".join(share.split()) for share in PUBLISHED.split("\n\n")]
    secret = "c938b319067687e990e05e0da0ecce1278f75ff58d9853f19dcaeed5de104aae"
    assert shamir_mnemonic.combine_mnemonics(shares, b"TREZOR").hex() == secret
    with pytest.raises(shamir_mnemonic.MnemonicError):
        shamir_mnemonic.combine_mnemonics(shares[:1], b"TREZOR")


# --- a host ---


def test_the_root_key_of_a_hardware_host_needs_no_exception(split: ShamirSettings, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/host.db")
    database.migrate()
    created = create_root(database, ShamirUnseal.create(split), "hardware", accept_file_unseal=False)
    again = unseal_root(database, brought(split, 2, 4, 5), "hardware", accept_file_unseal=False)
    other = replace(split, folder=tmp_path / "other")
    with pytest.raises(ConfigurationError, match="already"):
        create_root(database, ShamirUnseal.create(other), "hardware", accept_file_unseal=False)
    database.close()
    assert again.deployment == created.deployment
    assert not list(other.folder.iterdir()), "shares of a root key that is none"


def test_a_host_starts_from_its_shares_and_attests_that_it_did(split: ShamirSettings, tmp_path: Path) -> None:
    started = HostSettings(
        state=tmp_path / "state",
        attester=AttesterSettings(name="simulated"),
        unseal="shamir",
        shamir=split,
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
    )
    initialize(started)
    with build(replace(started, shamir=replace(split, files=split.paths[1:4]))) as host:
        assert host.keysets.keyset().config["unseal"] == "shamir"
    too_few = replace(started, shamir=replace(split, files=split.paths[:2]))
    with pytest.raises(ConfigurationError, match="3 shares are needed"), build(too_few):
        pytest.fail("it started")


def test_the_commands_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    section = GUIDE.read_text().split("## shamir")[1].split("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    for line in block.splitlines():
        run(shlex.split(line), tmp_path)
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_text())
    assert policy.config["unseal"] == ("shamir",)
    too_few = ["cloister", "host", "serve", "--attester", "simulated", "--unseal", "shamir"]
    done = run([*too_few, "--share", "shares/share-1.txt"], tmp_path, fails=True)
    assert "3 shares are needed, and 1" in done.stderr
