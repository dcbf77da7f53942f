"""Wheels: found by their hashes, packed whole, unpacked within limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError, LimitError
from cloister.function import wheels
from cloister.function.bundle import build_bundle, read_bundle
from cloister.function.wheels import collect_wheels, read_lock, unpack_wheels
from support.wheels import lock_line, make_wheel

GREETING = make_wheel(
    {
        "greeting/__init__.py": b"def hello() -> str:\n    return 'hello'\n",
        "greeting-1.0.dist-info/METADATA": b"Name: greeting\n",
        "greeting-1.0.data/purelib/extra.py": b"x = 1\n",
        "greeting-1.0.data/scripts/greet": b"#!python\n",
    }
)
NAME = "greeting-1.0-py3-none-any.whl"
OTHER = make_wheel({"other.py": b"y = 2\n"})
FUNCTION = """
from greeting import hello
from cloister.function import function, text

@function("greets", output=text(max_chars=9))
def greets(name: str) -> str:
    return hello()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    (code / "wheels").mkdir(parents=True)
    (code / "function.py").write_text(FUNCTION)
    (code / "requirements.lock").write_text("# made by a tool\n" + lock_line("Greeting", GREETING, OTHER))
    (code / "wheels" / NAME).write_bytes(GREETING)
    return code


def test_a_bundle_holds_the_pinned_wheels_whole_and_its_digest_is_the_same_everywhere(
    folder: Path, tmp_path: Path
) -> None:
    bundle = build_bundle(folder)
    assert bundle.files[f"wheels/{NAME}"] == GREETING
    assert read_bundle(bundle.data).digest == bundle.digest
    elsewhere = tmp_path / "elsewhere"
    (folder / "wheels").rename(elsewhere)
    assert build_bundle(folder, wheels=elsewhere).digest == bundle.digest


def test_a_wheel_that_no_pin_names_is_left_out(folder: Path) -> None:
    digest = build_bundle(folder).digest
    (folder / "wheels" / "stray-1.0-py3-none-any.whl").write_bytes(make_wheel({"stray.py": b""}))
    assert build_bundle(folder).digest == digest


def test_unpacked_wheels_lie_in_site_packages() -> None:
    files = {"function.py": b"", "requirements.lock": lock_line("greeting", GREETING).encode()}
    unpacked = unpack_wheels({**files, f"wheels/{NAME}": GREETING})
    assert unpacked.keys() == files.keys() | {
        "site-packages/greeting/__init__.py",
        "site-packages/greeting-1.0.dist-info/METADATA",
        "site-packages/extra.py",
    }


def test_a_wheel_with_another_hash_is_refused(folder: Path) -> None:
    changed = make_wheel({"greeting/__init__.py": b"import evil\n"})
    (folder / "wheels" / NAME).write_bytes(changed)
    with pytest.raises(ConfigurationError, match="greeting has 0 wheels"):
        build_bundle(folder)
    lock = lock_line("greeting", GREETING).encode()
    with pytest.raises(ConfigurationError, match="not pinned"):
        unpack_wheels({"requirements.lock": lock, f"wheels/{NAME}": changed})
    with pytest.raises(ConfigurationError, match=r"no requirements\.lock"):
        unpack_wheels({f"wheels/{NAME}": GREETING})


def test_two_wheels_that_fit_are_one_too_many(folder: Path) -> None:
    (folder / "wheels" / "greeting-1.0-py2.py3-none-any.whl").write_bytes(OTHER)
    with pytest.raises(ConfigurationError, match="greeting has 2 wheels"):
        build_bundle(folder)


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp39-abi3-manylinux_2_28_x86_64", True),
        ("py3-none-manylinux1_x86_64", True),
        ("py2-none-any", False),
        ("cp312-cp312-manylinux_2_17_x86_64", False),
        ("cp312-abi3-manylinux_2_17_x86_64", False),
        ("cp311-cp311-manylinux_2_17_aarch64", False),
        ("cp311-cp311-macosx_11_0_arm64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
    ],
)
def test_a_wheel_has_to_fit_the_hosts_python(tmp_path: Path, tags: str, fits: bool) -> None:
    (tmp_path / f"greeting-1.0-{tags}.whl").write_bytes(GREETING)
    if fits:
        assert len(collect_wheels(lock_line("greeting", GREETING), tmp_path, python="3.11")) == 1
    else:
        with pytest.raises(ConfigurationError, match="has 0 wheels"):
            collect_wheels(lock_line("greeting", GREETING), tmp_path, python="3.11")


@pytest.mark.parametrize(
    "line",
    [
        "greeting",
        "greeting==1.0",
        "greeting>=1.0 --hash=sha256:" + "0" * 64,
        "greeting==1.0 --hash=md5:" + "0" * 32,
        "greeting==1.0 ; python_version < '3' --hash=sha256:" + "0" * 64,
        "--index-url https://evil.example",
        "-r other.txt",
        "https://evil.example/greeting.whl --hash=sha256:" + "0" * 64,
    ],
)
def test_a_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ConfigurationError, match="no pin"):
        read_lock(line)


def test_a_project_is_pinned_once() -> None:
    pin = " --hash=sha256:" + "0" * 64
    with pytest.raises(ConfigurationError, match="repeats a project"):
        read_lock(f"a-b==1{pin}\nA_b==2{pin}\n")


def unpack(wheel: bytes) -> dict[str, bytes]:
    return unpack_wheels({"requirements.lock": lock_line("a", wheel).encode(), "wheels/a.whl": wheel})


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/passwd", "a/../../b.py", "a\\b.py", "a//b.py", "a.data/purelib/../../b.py"]
)
def test_a_member_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="file name"):
        unpack(make_wheel({name: b""}))


def test_a_wheel_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = make_wheel({"a.py": bytes(1 << 20)})
    monkeypatch.setattr(wheels, "MAX_UNPACKED_BYTES", 1 << 19)
    with pytest.raises(LimitError):
        unpack(bomb)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_UNPACKED_FILES", 2)
    with pytest.raises(LimitError):
        unpack(make_wheel({f"{name}.py": b"" for name in "abc"}))


def test_site_packages_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "a.py").write_text("")
    with pytest.raises(ConfigurationError, match="where wheels are unpacked"):
        build_bundle(folder)


@given(st.data())
def test_a_damaged_wheel_is_refused_with_our_errors(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(GREETING) - 1))
    mutated = GREETING[:position] + bytes([data.draw(st.integers(0, 255))]) + GREETING[position + 1 :]
    try:
        unpacked = unpack(mutated)
    except CloisterError:
        return
    assert all(isinstance(content, bytes) for content in unpacked.values())


def test_the_hash_in_the_lock_is_of_the_whole_file() -> None:
    assert read_lock(lock_line("a", GREETING))[0].hashes == {hashlib.sha256(GREETING).hexdigest()}
