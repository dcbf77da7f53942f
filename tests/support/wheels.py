"""Small wheels, made here."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

__all__ = ["lock_line", "make_wheel", "native_wheel"]


def make_wheel(members: dict[str, bytes]) -> bytes:
    """A wheel with these members."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), content)
    return archive.getvalue()


def native_wheel() -> tuple[str, bytes]:
    """A manylinux wheel with a shared library: an installed package, packed again."""
    found = importlib.util.find_spec("markupsafe")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    members = {
        f"markupsafe/{path.name}": path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in {".py", ".so"}
    }
    return "markupsafe-3.0.4-cp311-cp311-manylinux_2_17_x86_64.whl", make_wheel(members)


def lock_line(project: str, *wheels: bytes, version: str = "1.0") -> str:
    """A line of `requirements.lock`, as pip-compile writes it."""
    hashes = " \\\n".join(f"    --hash=sha256:{hashlib.sha256(wheel).hexdigest()}" for wheel in wheels)
    return f"{project}=={version} \\\n{hashes}\n    # via somebody\n"
