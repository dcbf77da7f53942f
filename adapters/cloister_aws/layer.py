"""Lambda layers: the SDK and what it needs, as wheels for the platform that Lambda runs.

The same installation builds the same bytes: versions are those installed here, entries are sorted and carry
no time, and bytecode does not depend on when it was made.

Source: https://docs.aws.amazon.com/lambda/latest/dg/python-layers.html
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["Architecture", "Layer", "build_layer"]

Architecture = Literal["x86_64", "arm64"]

PACKAGES: Final = ("cloister", "cloister_aws")
LEFT_OUT: Final = frozenset({"__pycache__", "_cli", "layer.py", "tests", "SPEC.md"})
"""Nothing of these runs inside Lambda."""
NEEDLESS: Final = re.compile(
    r"(^|/)(tests?/|__pycache__/|.*\.(pyi|c|h|pyx)$|[^/]+\.dist-info/(RECORD|INSTALLER|WHEEL)$)"
)
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
GLIBC: Final = {"old": (17, 26), "new": (17, 26, 28, 34)}
"""Minor versions of glibc 2 that Amazon Linux 2 (up to Python 3.11) and 2023 have at least."""
FIRST_ON_2023: Final = 12
TIMEOUT_SECONDS: Final = 300
_PYTHON: Final = re.compile(r"3\.(1[1-9])")
_COMPILE: Final = """
import sys
from pathlib import Path
from py_compile import PycInvalidationMode, compile
root, version = Path(sys.argv[1]), tuple(map(int, sys.argv[2].split(".")))
assert sys.version_info[:2] == version
for path in sorted(root.rglob("*.py")):
    shown = "/opt/python/" + path.relative_to(root).as_posix()
    compile(path, dfile=shown, doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that was built.

    Attributes:
        packages: Version by distribution.
        has_bytecode: Without it Python compiles at every cold start, since it cannot write to a layer.
    """

    path: Path
    sha256: str
    size_bytes: int
    python: str
    architecture: Architecture
    packages: dict[str, str]
    has_bytecode: bool


def build_layer(out: Path, *, python: str, architecture: Architecture) -> Layer:
    """Build a layer for one Python version and one architecture.

    boto3 is left out, since Lambda brings it.

    Args:
        out: The zip file to write.
        python: "3.12", say: the function's runtime.
        architecture: The function's architecture.

    Raises:
        ConfigurationError: There is no such runtime, or a package has no wheel for it.
        UnavailableError: The package index did not answer.
    """
    if _PYTHON.fullmatch(python) is None or architecture not in get_args(Architecture):
        raise ConfigurationError(
            "there is no such runtime", hint="--python 3.11 or newer, --architecture x86_64 or arm64"
        )
    with tempfile.TemporaryDirectory(prefix="cloister-layer-") as folder:
        wheels, root = Path(folder, "wheels"), Path(folder, "python")
        _download(wheels, python=python, architecture=architecture)
        packages = {"cloister": metadata.version("cloister")}
        for wheel in sorted(wheels.glob("*.whl")):
            name, version, *_ = wheel.name.split("-")
            packages[name] = version
            _unpack(wheel, root)
        for package in PACKAGES:
            _copy(package, root)
        _describe(root)
        has_bytecode = _compile(root, python)
        out.parent.mkdir(parents=True, exist_ok=True)
        _zip(root, out)
    return Layer(
        path=out,
        sha256=hashlib.sha256(out.read_bytes()).hexdigest(),
        size_bytes=out.stat().st_size,
        python=python,
        architecture=architecture,
        packages=packages,
        has_bytecode=has_bytecode,
    )


def _download(folder: Path, *, python: str, architecture: Architecture) -> None:
    folder.mkdir()
    constraints = folder.parent / "constraints.txt"
    installed = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed.items())))
    digits = python.replace(".", "")
    tags = [argument for tag in _platforms(python, architecture) for argument in ("--platform", tag)]
    abis = [argument for tag in (f"cp{digits}", "abi3", "none") for argument in ("--abi", tag)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", python, *abis, *tags),
        *("--dest", str(folder), "--constraint", str(constraints), *_requirements()),
    ]
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter)
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError("the package index did not answer in time") from None
    if done.returncode:
        is_old = int(python.partition(".")[2]) < FIRST_ON_2023
        raise ConfigurationError(
            f"not every package has a wheel for Python {python} on {architecture}",
            hint="Lambda runs it on Amazon Linux 2, whose glibc is too old for some: take 3.12 or newer"
            if is_old
            else f"check the route to your package index; pip said: {_complaint(done.stderr)}",
        )


def _complaint(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return lines[0].removeprefix("ERROR: ")[:200] if lines else "nothing"


def _requirements() -> list[str]:
    """What the SDK itself needs, without its extras."""
    return [line for line in metadata.requires("cloister") or [] if "extra ==" not in line]


def _platforms(python: str, architecture: Architecture) -> list[str]:
    machine = {"x86_64": "x86_64", "arm64": "aarch64"}[architecture]
    is_new = int(python.partition(".")[2]) >= FIRST_ON_2023
    tags = [f"manylinux_2_{minor}_{machine}" for minor in reversed(GLIBC["new" if is_new else "old"])]
    return [*tags, f"manylinux2014_{machine}"]


def _unpack(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            # pip has checked the names when it built or fetched the wheel; a layer needs no scripts.
            if entry.is_dir() or ".data/" in entry.filename or NEEDLESS.search(entry.filename):
                continue
            target = root / entry.filename
            if not target.resolve().is_relative_to(root.resolve()):
                raise ConfigurationError(f"the wheel {wheel.name} is malformed")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))


def _copy(package: str, root: Path) -> None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"{package} is not installed", hint="pip install 'cloister[aws]'")
    source = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(source, root / package, ignore=lambda _, names: LEFT_OUT.intersection(names))


def _describe(root: Path) -> None:
    """The distribution's metadata, so that its version can be asked for."""
    text = metadata.distribution("cloister").read_text("METADATA")
    folder = root / f"cloister-{metadata.version('cloister')}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(text or "", encoding="utf-8")


def _compile(root: Path, python: str) -> bool:
    """Compile with the runtime's own version of Python, if there is one here."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [
        sys.executable,
        shutil.which(f"python{python}"),
        *sorted(pyenv.glob(f"{python}.*/bin/python")),
    ]
    for interpreter in candidates:
        if interpreter is not None:
            # The order of sets of names is part of bytecode. A shim of a version manager may exist and fail.
            command = [str(interpreter), "-c", _COMPILE, str(root), python]
            done = subprocess.run(command, capture_output=True, check=False, env={"PYTHONHASHSEED": "0"})  # noqa: S603 (as above)
            if done.returncode == 0:
                return True
    return False


def _zip(root: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in _files(root):
            entry = zipfile.ZipInfo(f"python/{path.relative_to(root).as_posix()}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())


def _files(root: Path) -> Iterator[Path]:
    return iter(sorted((path for path in root.rglob("*") if path.is_file()), key=Path.as_posix))
