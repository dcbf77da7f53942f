"""Bundles: a function's directory as one archive with one digest.

The archive is a ZIP with stored members in one normal form (SPEC.md), so the same sources give the same
digest on every machine, and reading is simple: take the members out, write them again, compare bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module, invalidate_caches
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Final

from cloister.errors import ConfigurationError, LimitError
from cloister.function.declare import declaration_of
from cloister.function.manifest import Manifest
from cloister.function.wheels import LOCK_NAME, SITE, collect_wheels, unpack_wheels

__all__ = ["BUNDLE_CONTEXT", "MAX_BUNDLE_BYTES", "Bundle", "build_bundle", "derive_manifest", "read_bundle"]

MAX_BUNDLE_BYTES: Final = 16 << 20
BUNDLE_CONTEXT: Final = {"purpose": "bundle"}
"""What a sealed bundle is bound to, so that no other sealed value passes for one."""
MANIFEST_NAME: Final = "manifest.json"
_MAX_FILES: Final = 1024
_MAX_NAME_CHARS: Final = 256
_MEMBER: Final = re.compile(r"(?:[A-Za-z0-9_+-][A-Za-z0-9_.+-]*/)*[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT: Final = re.compile(
    r"test_.*\.py|.*_test\.py|conftest\.py|.*\.(?:pyc|md)|cloister\.toml|pyproject\.toml"
)
_LEFT_OUT_FOLDERS: Final = frozenset({"__pycache__", "tests", "node_modules"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A function ready to be deployed.

    Attributes:
        manifest: What it declares.
        files: Member name to content, without the manifest.
        data: The archive.
        digest: SHA-256 of the archive, lower-case hex; what grants and receipts name.
    """

    manifest: Manifest
    files: Mapping[str, bytes] = field(repr=False)
    data: bytes = field(repr=False)
    digest: str


def build_bundle(
    directory: str | Path,
    settings: Mapping[str, str] | None = None,
    *,
    wheels: Path | None = None,
    python: str | None = None,
) -> Bundle:
    """Bundle the one confidential function in `directory`.

    The function lives in `function.py`, or in the one top-level module that uses `@function`. Every other
    file is packed with it, except tests, Markdown and hidden files. The module is imported here to read
    its declaration, so run this where you would run the function's tests.

    Args:
        directory: Folder with the function's code and the data files it reads.
        settings: Values for `${NAMES}` in the declaration; recorded in the manifest.
        wheels: Folder with the wheels that `requirements.lock` pins; by default `wheels/` in the folder,
            and if there is none they are downloaded.
        python: Version of Python that the host runs, for wheels with native code; by default this one's.

    Raises:
        ConfigurationError: There is no function, more than one, its declaration does not hold, or a pin
            has no wheel that fits.
        LimitError: The folder is too large.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ConfigurationError(f"{root} is not a folder", hint="give the folder that holds function.py")
    files = dict(_files(root))
    if LOCK_NAME in files:
        kept = root / "wheels"
        lock = files[LOCK_NAME].decode("utf-8", "replace")
        files |= collect_wheels(lock, wheels or (kept if kept.is_dir() else None), python=python)
    with _unpacked(files) as site:
        manifest = derive_manifest(root, _find_module(files), settings or {}, site=site)
    data = _write({**files, MANIFEST_NAME: manifest.canonical()})
    if len(data) > MAX_BUNDLE_BYTES or len(files) > _MAX_FILES:
        raise _too_large()
    return Bundle(manifest=manifest, files=files, data=data, digest=hashlib.sha256(data).hexdigest())


def read_bundle(data: bytes) -> Bundle:
    """Read a bundle from hostile bytes.

    Raises:
        ConfigurationError: It is not in the normal form or its manifest is not valid.
        LimitError: It is too large.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise LimitError("the bundle is too large", hint=f"at most {MAX_BUNDLE_BYTES >> 20} MiB")
    members = _members(data)
    if members is None or MANIFEST_NAME not in members or _write(members) != data:
        raise ConfigurationError("the bundle is not valid", hint="build it with `cloister function build`")
    manifest = Manifest.parse(members.pop(MANIFEST_NAME))
    return Bundle(manifest=manifest, files=members, data=data, digest=hashlib.sha256(data).hexdigest())


def derive_manifest(
    directory: Path, module_name: str, settings: Mapping[str, str], *, site: Path | None = None
) -> Manifest:
    """Import a module from `directory` and derive the manifest of the one function in it.

    Args:
        directory: Where the function's modules are.
        module_name: The one that declares it.
        settings: Values for `${NAMES}`.
        site: Where its wheels are unpacked.
    """
    with _importing(directory, module_name, site) as module:
        found = [
            (declared, candidate)
            for candidate in vars(module).values()
            if (declared := declaration_of(candidate)) and candidate.__module__ == module_name
        ]
        if len(found) != 1:
            raise ConfigurationError(
                f"{module_name}.py has {len(found)} confidential functions",
                hint="decorate one; one folder is one bundle",
            )
        declared, implementation = found[0]
        return declared.manifest(implementation, settings)


@contextmanager
def _importing(directory: Path, module_name: str, site: Path | None) -> Iterator[ModuleType]:
    """Import from `directory` and forget it again, so that two folders may use the same module names."""
    before, keep_bytecode = set(sys.modules), sys.dont_write_bytecode
    shadowed = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == module_name
    }
    places = [directory.resolve(), *([site.resolve()] if site else [])]
    sys.path[:0] = map(str, places)
    sys.dont_write_bytecode = True
    invalidate_caches()
    try:
        yield import_module(module_name)
    finally:
        sys.dont_write_bytecode = keep_bytecode
        for place in places:
            sys.path.remove(str(place))
        for name in set(sys.modules) - before | {module_name}:
            origin = getattr(sys.modules.get(name), "__file__", None)
            if origin and any(Path(origin).resolve().is_relative_to(place) for place in places):
                del sys.modules[name]
        sys.modules.update(shadowed)


@contextmanager
def _unpacked(files: Mapping[str, bytes]) -> Iterator[Path | None]:
    """The bundle's wheels where they can be imported from; None if there are none."""
    prefix = f"{SITE}/"
    site = {name: data for name, data in unpack_wheels(files).items() if name.startswith(prefix)}
    if not site:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, data in site.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield Path(folder) / SITE


def _find_module(files: Mapping[str, bytes]) -> str:
    if "function.py" in files:
        return "function"
    candidates = [
        name
        for name, content in files.items()
        if "/" not in name and name.endswith(".py") and b"\n@function(" in content
    ]
    if len(candidates) != 1:
        raise ConfigurationError(
            f"{len(candidates)} modules of the folder use @function", hint="put the function into function.py"
        )
    return candidates[0].removesuffix(".py")


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    total = count = 0
    for path in sorted(root.rglob("*")):
        relative = PurePosixPath(path.relative_to(root))
        hidden = any(part.startswith(".") or part in _LEFT_OUT_FOLDERS for part in relative.parts)
        if hidden or path.is_dir() or _LEFT_OUT.fullmatch(path.name) or str(relative) == MANIFEST_NAME:
            continue
        # Those that the lock pins are packed by their pins.
        if relative.parts[0] == "wheels" and path.suffix == ".whl":
            continue
        if path.is_symlink() or not path.is_file():
            raise ConfigurationError(
                f"{relative} is not a plain file", hint="copy what it points to into the folder"
            )
        if not _good_member(str(relative)):
            raise ConfigurationError(
                f"the file name {relative} cannot be bundled", hint="use A-Z a-z 0-9 _ . + -"
            )
        total += path.stat().st_size
        count += 1
        if total > MAX_BUNDLE_BYTES or count > _MAX_FILES:
            raise _too_large()
        yield str(relative), path.read_bytes()


def _too_large() -> LimitError:
    return LimitError(
        "the folder is too large for a bundle",
        hint=f"at most {MAX_BUNDLE_BYTES >> 20} MiB in {_MAX_FILES} files, wheels included",
    )


def _good_member(name: str) -> bool:
    return len(name) <= _MAX_NAME_CHARS and _MEMBER.fullmatch(name) is not None


def _write(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, files[name])
    return archive.getvalue()


def _members(data: bytes) -> dict[str, bytes] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_FILES + 1 or sum(entry.file_size for entry in entries) > len(data):
                return None
            if not all(
                entry.compress_type == zipfile.ZIP_STORED and _good_member(entry.filename)
                for entry in entries
            ):
                return None
            # A name that is both a file and a folder cannot be unpacked.
            names = {entry.filename for entry in entries}
            if any(str(parent) in names for name in names for parent in PurePosixPath(name).parents):
                return None
            return {entry.filename: archive.read(entry) for entry in entries}
    # zipfile lets several of its own and struct's errors out on damaged input.
    except Exception:  # noqa: BLE001 - hostile bytes end in one answer
        return None
