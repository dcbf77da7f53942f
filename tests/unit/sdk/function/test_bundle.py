"""Bundles: one digest for the same sources, and no other bytes than the normal form."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError, LimitError
from cloister.function import Manifest
from cloister.function.bundle import MAX_BUNDLE_BYTES, build_bundle, read_bundle

SOURCE = """
from typing import Annotated
from cloister.function import boolean, function, sealed
from helper import LIMIT

@function("is-adult", output=boolean())
def is_adult(age: Annotated[int, sealed("ages", context=["person"])]) -> bool:
    return age >= LIMIT
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "is_adult"
    (root / "data").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "function.py").write_text(SOURCE)
    (root / "helper.py").write_text("LIMIT = 18\n")
    (root / "data" / "table.json").write_text("[1]")
    for left_out in ("README.md", "test_function.py", ".env", "tests/test_more.py"):
        (root / left_out).write_text("x = (")
    return root


def test_a_bundle_holds_code_and_data_but_no_tests_or_hidden_files(folder: Path) -> None:
    bundle = build_bundle(folder)
    assert sorted(bundle.files) == ["data/table.json", "function.py", "helper.py"]
    assert bundle.manifest.entrypoint == "function:is_adult"


def test_reading_gives_back_what_was_built(folder: Path) -> None:
    built = build_bundle(folder)
    read = read_bundle(built.data)
    assert (read.digest, read.files, read.manifest.canonical()) == (
        built.digest,
        built.files,
        built.manifest.canonical(),
    )


def test_times_and_order_of_files_do_not_change_the_digest(folder: Path) -> None:
    before = build_bundle(folder).digest
    os.utime(folder / "helper.py", (1, 1))
    (folder / "helper.py").rename(folder / "moved.py")
    (folder / "moved.py").rename(folder / "helper.py")
    assert build_bundle(folder).digest == before


def test_another_process_with_another_hash_seed_builds_the_same_digest(folder: Path) -> None:
    code = f"from cloister.function.bundle import build_bundle; print(build_bundle({str(folder)!r}).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Pacific/Kiritimati"},
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {build_bundle(folder).digest + "\n"}


def test_changing_one_byte_of_code_changes_the_digest(folder: Path) -> None:
    before = build_bundle(folder).digest
    (folder / "helper.py").write_text("LIMIT = 19\n")
    assert build_bundle(folder).digest != before


def test_building_leaves_nothing_behind(folder: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    build_bundle(folder)
    assert sys.path == path
    assert not {"function", "helper"} & (set(sys.modules) - modules)
    assert not list(folder.rglob("__pycache__"))


def test_two_folders_with_the_same_module_names_do_not_mix(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "helper.py").write_text("LIMIT = 21\n")
    (other / "function.py").write_text(SOURCE.replace("is-adult", "is-older"))
    assert build_bundle(folder).manifest.name == "is-adult"
    assert build_bundle(other).manifest.name == "is-older"


def test_a_module_by_another_name_is_found(folder: Path) -> None:
    (folder / "function.py").rename(folder / "adult.py")
    assert build_bundle(folder).manifest.entrypoint == "adult:is_adult"


def test_a_folder_without_a_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"function\.py"):
        build_bundle(tmp_path)


def test_a_module_with_two_functions_is_refused(folder: Path) -> None:
    (folder / "function.py").write_text(SOURCE + SOURCE.replace("is_adult", "second"))
    with pytest.raises(ConfigurationError, match="2 confidential functions"):
        build_bundle(folder)


def test_a_symlink_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match="not a plain file"):
        build_bundle(folder)


def test_a_folder_that_is_too_large_is_refused(folder: Path) -> None:
    with (folder / "big.bin").open("wb") as big:
        big.truncate(MAX_BUNDLE_BYTES + 1)
    with pytest.raises(LimitError):
        build_bundle(folder)


def archive(files: dict[str, bytes], **changes: object) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            for field, value in changes.items():
                setattr(entry, field, value)
            opened.writestr(entry, content)
    return target.getvalue()


@pytest.fixture
def members(folder: Path) -> dict[str, bytes]:
    built = build_bundle(folder)
    return dict(sorted({**built.files, "manifest.json": built.manifest.canonical()}.items()))


def test_the_helper_of_these_tests_makes_good_bundles(members: dict[str, bytes]) -> None:
    assert read_bundle(archive(members)).manifest.name == "is-adult"


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/evil.py", "a//b.py", "./a.py", "a/", ".hidden", "a\\b.py", "a b"]
)
def test_a_member_name_that_could_leave_its_folder_is_refused(members: dict[str, bytes], name: str) -> None:
    with pytest.raises(ConfigurationError, match="bundle is not valid"):
        read_bundle(archive(dict(sorted({**members, name: b""}.items()))))


@pytest.mark.parametrize(
    "changes",
    [
        {"external_attr": 0o120777 << 16},
        {"compress_type": zipfile.ZIP_DEFLATED},
        {"date_time": (1981, 1, 1, 0, 0, 0)},
        {"comment": b"hidden"},
        {"extra": b"\x01\x02\x00\x00"},
    ],
)
def test_a_member_with_another_attribute_is_refused(
    members: dict[str, bytes], changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match="bundle is not valid"):
        read_bundle(archive(members, **changes))


def test_members_in_another_order_are_refused(members: dict[str, bytes]) -> None:
    with pytest.raises(ConfigurationError, match="bundle is not valid"):
        read_bundle(archive(dict(reversed(members.items()))))


def test_a_file_that_is_also_a_folder_is_refused(members: dict[str, bytes]) -> None:
    with pytest.raises(ConfigurationError, match="bundle is not valid"):
        read_bundle(archive(dict(sorted({**members, "helper.py/x": b""}.items()))))


@pytest.mark.parametrize("where", ["before", "after"])
def test_bytes_around_the_archive_are_refused(members: dict[str, bytes], where: str) -> None:
    good = archive(members)
    with pytest.raises(ConfigurationError, match="bundle is not valid"):
        read_bundle(b"x" + good if where == "before" else good + b"x")


def test_an_archive_without_manifest_is_refused(members: dict[str, bytes]) -> None:
    members.pop("manifest.json")
    with pytest.raises(ConfigurationError, match="bundle is not valid"):
        read_bundle(archive(members))


def test_an_archive_that_is_too_large_is_refused() -> None:
    with pytest.raises(LimitError):
        read_bundle(bytes(MAX_BUNDLE_BYTES + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"batch": 1},
        {"manifest": 2},
        {"entrypoint": "os"},
        {"output": {"class": "everything"}},
        {"output": {"class": "boolean", "more": 1}},
        {"egress": {"partner": {"origin": "http://a.example"}}},
        {"limits": {"timeout_seconds": 10**9, "memory_mib": 256}},
        {"settings": {"A": 1}},
        {"inputs": [{"name": "a b", "type": {}, "required": True}]},
    ],
)
def test_a_manifest_with_one_bad_member_is_refused(
    members: dict[str, bytes], change: dict[str, object]
) -> None:
    described = {**json.loads(members["manifest.json"]), **change}
    with pytest.raises(ConfigurationError):
        Manifest.parse(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())


@given(st.binary(max_size=512))
def test_random_bytes_are_refused_with_our_errors(data: bytes) -> None:
    for parse in (read_bundle, Manifest.parse):
        with pytest.raises(CloisterError):
            parse(data)


@given(st.data())
def test_changed_bytes_are_refused_with_our_errors(data: st.DataObject) -> None:
    manifest = (
        b'{"batch":false,"budget":null,"delivery":null,"egress":{},"entrypoint":"f:f","errors":[],"inputs":[],'
        b'"limits":{"memory_mib":256,"pad_milliseconds":0,"timeout_seconds":10},"logs":null,"manifest":1,'
        b'"name":"f","output":{"class":"boolean"},"progress":false,"settings":{}}'
    )
    good = archive({"f.py": b"x = 1\n", "manifest.json": manifest})
    assert read_bundle(good).manifest.name == "f"
    position = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255))
    mutated = good[:position] + bytes([value]) + good[position + 1 :]
    try:
        read = read_bundle(mutated)
    except CloisterError:
        return
    # What is still accepted is another valid bundle, with another digest.
    assert (mutated == good) == (read.digest == read_bundle(good).digest)
