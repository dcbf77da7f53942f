"""Wheels in a bundle: pinned by hash, packed whole, unpacked where the function runs.

`requirements.lock` is what `pip-compile --generate-hashes` or `uv pip compile --generate-hashes` writes.
A wheel is packed as it is, so that its hash can be compared with the lock by whoever reads the bundle, the
host included.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError, LimitError, UnavailableError

__all__ = ["LOCK_NAME", "SITE", "Pin", "collect_wheels", "read_lock", "unpack_wheels"]

LOCK_NAME: Final = "requirements.lock"
FOLDER: Final = "wheels"
SITE: Final = "site-packages"
MAX_UNPACKED_BYTES: Final = 64 << 20
MAX_UNPACKED_FILES: Final = 3072
_DOWNLOAD_SECONDS: Final = 300

_PIN: Final = re.compile(
    r"(?P<project>[A-Za-z0-9][A-Za-z0-9._-]{0,63})==(?P<version>[A-Za-z0-9.!+_-]{1,64})"
    r"(?P<hashes>(?:\s+--hash=sha256:[0-9a-f]{64})+)"
)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# Name, version, optional build, then the tags (binary distribution format, PyPA).
_WHEEL: Final = re.compile(
    r"(?P<project>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(?:-[0-9][A-Za-z0-9_.]*)?"
    r"-(?P<python>[a-z0-9_.]+)-(?P<abi>[a-z0-9_.]+)-(?P<platform>[a-z0-9_.]+)\.whl"
)
_MEMBER: Final = re.compile(r"(?:[A-Za-z0-9_+-][A-Za-z0-9_.+-]*/)*[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
_DATA: Final = re.compile(r"[^/]+\.data/(?:purelib|platlib)/(.+)")
_DATA_FOLDER: Final = re.compile(r"[^/]+\.data/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One line of a lock: which project in which version, and the hashes of the files it may be."""

    project: str
    version: str
    hashes: frozenset[str]


def read_lock(text: str) -> tuple[Pin, ...]:
    """Read a `requirements.lock`.

    Raises:
        ConfigurationError: A line is no pin with hashes, or a project stands there twice.
    """
    joined = text.replace("\\\n", " ")
    lines = (line.partition("#")[0].strip() for line in joined.splitlines())
    pins: dict[str, Pin] = {}
    for line in filter(None, lines):
        match = _PIN.fullmatch(line)
        project = _normal(match["project"]) if match else ""
        if match is None or project in pins:
            raise ConfigurationError(
                f"a line of {LOCK_NAME} is no pin with hashes, has a marker, or repeats a project",
                hint="write it with `pip-compile --generate-hashes`, for one Python version",
            )
        pins[project] = Pin(
            project=project, version=match["version"], hashes=frozenset(_HASH.findall(match["hashes"]))
        )
    return tuple(pins.values())


def collect_wheels(lock: str, folder: Path | None, *, python: str | None = None) -> dict[str, bytes]:
    """Find the one wheel of each pin; bundle member name to content.

    Args:
        lock: Text of `requirements.lock`.
        folder: Folder that holds the wheels; without it `pip download` fetches them.
        python: Version of Python that the host runs, `3.11`; by default this one's.

    Raises:
        ConfigurationError: A pin has no wheel that fits, or several.
        UnavailableError: Nothing could be downloaded.
    """
    pins = read_lock(lock)
    if not pins:
        return {}
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    if folder is not None:
        return _chosen(pins, folder, python)
    with tempfile.TemporaryDirectory() as fetched:
        _download(lock, Path(fetched), python)
        return _chosen(pins, Path(fetched), python)


def unpack_wheels(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A bundle's members as they lie where the function runs: wheels unpacked into `site-packages`.

    Raises:
        ConfigurationError: A wheel is not in the lock, or is no wheel.
        LimitError: The wheels are too large, or have too many files.
    """
    if any(name.startswith(f"{SITE}/") for name in files):
        raise ConfigurationError(f"{SITE} is where wheels are unpacked", hint=f"pin them in {LOCK_NAME}")
    wheels = {name: content for name, content in files.items() if _is_wheel(name)}
    if not wheels:
        return dict(files)
    if LOCK_NAME not in files:
        raise ConfigurationError(f"the bundle has wheels and no {LOCK_NAME}", hint="build it again")
    pinned = {
        digest for pin in read_lock(files[LOCK_NAME].decode("utf-8", "replace")) for digest in pin.hashes
    }
    unpacked = {name: content for name, content in files.items() if name not in wheels}
    budget = _Room()
    for name, content in sorted(wheels.items()):
        if hashlib.sha256(content).hexdigest() not in pinned:
            raise ConfigurationError(f"{name} is not pinned in {LOCK_NAME}", hint="build the bundle again")
        for member, data in _members(content, budget):
            unpacked[f"{SITE}/{member}"] = data
    return unpacked


class _Room:
    """How much may still be unpacked."""

    def __init__(self) -> None:
        self.size_bytes = MAX_UNPACKED_BYTES
        self.files = MAX_UNPACKED_FILES

    def take(self, size_bytes: int) -> None:
        self.size_bytes -= size_bytes
        self.files -= 1
        if self.size_bytes < 0 or self.files < 0:
            raise LimitError(
                "the wheels are too large",
                hint=f"unpacked at most {MAX_UNPACKED_BYTES >> 20} MiB in {MAX_UNPACKED_FILES} files",
            )


def _members(wheel: bytes, room: _Room) -> Iterator[tuple[str, bytes]]:
    broken = ConfigurationError("a wheel of the bundle is damaged", hint="download it again")
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                # Announced first: what is announced too small ends in an error of zipfile's own.
                room.take(entry.file_size)
                name = entry.filename
                placed = _DATA.fullmatch(name)
                if placed:
                    name = placed[1]
                elif _DATA_FOLDER.match(name):
                    continue
                if not _MEMBER.fullmatch(name) and ".dist-info/" in name:
                    continue
                if not _MEMBER.fullmatch(name):
                    raise ConfigurationError(
                        "a wheel has a file name that cannot be used", hint="use another version of it"
                    )
                with archive.open(entry) as file:
                    data = file.read(entry.file_size + 1)
                if len(data) != entry.file_size:
                    raise broken
                yield name, data
    except (ConfigurationError, LimitError):
        raise
    except Exception:  # noqa: BLE001 - zipfile and zlib let several errors out on damaged input
        raise broken from None


def _chosen(pins: tuple[Pin, ...], folder: Path, python: str) -> dict[str, bytes]:
    found: dict[str, list[tuple[str, bytes]]] = {}
    for path in sorted(folder.glob("*.whl")):
        match = _WHEEL.fullmatch(path.name)
        if match and _fits(match, python):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            found.setdefault(digest, []).append((path.name, content))
    chosen = {}
    for pin in pins:
        fitting = [
            (name, content)
            for digest, wheels in found.items()
            if digest in pin.hashes
            for name, content in wheels
            if _normal(name.partition("-")[0]) == pin.project
        ]
        if len(fitting) != 1:
            raise ConfigurationError(
                f"{pin.project} has {len(fitting)} wheels that fit the lock and Python {python}",
                hint="exactly one: pure Python, or manylinux for x86_64",
            )
        name, content = fitting[0]
        chosen[f"{FOLDER}/{name}"] = content
    return chosen


def _fits(wheel: re.Match[str], python: str) -> bool:
    major, _, minor = python.partition(".")
    pythons, abis, platforms = (wheel[part].split(".") for part in ("python", "abi", "platform"))
    if abis == ["none"] and platforms == ["any"]:
        return f"py{major}" in pythons or f"py{major}{minor}" in pythons
    if not any(re.fullmatch(r"manylinux\w*_x86_64", platform) for platform in platforms):
        return False
    if "abi3" in abis:
        return any(tag.startswith("cp3") and int(tag[3:] or 0) <= int(minor) for tag in pythons)
    own = f"cp{major}{minor}"
    return own in abis or (abis == ["none"] and bool({own, f"py{major}"} & set(pythons)))


def _download(lock: str, folder: Path, python: str) -> None:
    (folder / LOCK_NAME).write_text(lock, encoding="utf-8")
    platforms = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
    abis = (f"cp{python.replace('.', '')}", "abi3", "none")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--require-hashes", "--python-version", python),
        *("--implementation", "cp", "--dest", str(folder), "--requirement", str(folder / LOCK_NAME)),
        *(part for platform in platforms for part in ("--platform", platform)),
        *(part for abi in abis for part in ("--abi", abi)),
    ]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=_DOWNLOAD_SECONDS)  # noqa: S603 - our own interpreter
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode != 0:
        raise UnavailableError(
            "the wheels of requirements.lock could not be downloaded",
            hint="put them into the folder wheels/ beside it",
            retryable=False,
        )


def _is_wheel(name: str) -> bool:
    return name.startswith(f"{FOLDER}/") and name.endswith(".whl")


def _normal(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()
