"""In the worker: a look at a bundle's code before it runs, and at a failure where debugging is on.

Parsing hostile sources can crash an interpreter, so it happens here and not in the host.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cloister_host.functions.frames import MAX_DETAIL_CHARS

__all__ = ["describe_failure", "look_at"]

_MAX_NOTES: Final = 64
_USELESS: Final = {
    "asyncio": "there is no network and no second thread",
    "ctypes": "the system calls it could make are refused",
    "http": "the network is reached through declared origins only",
    "httpx": "the network is reached through declared origins only",
    "multiprocessing": "no process can be started",
    "requests": "the network is reached through declared origins only",
    "signal": "the host ends what takes too long",
    "socket": "the network is reached through declared origins only",
    "subprocess": "no process can be started",
    "threading": "no thread can be started",
    "urllib": "the network is reached through declared origins only",
    "urllib3": "the network is reached through declared origins only",
}
# Parts that compute only.
_FINE: Final = frozenset({"urllib.parse", "http.HTTPStatus", "urllib.error"})


def look_at(code: Path) -> list[str]:
    """Parse every module, and note imports that are of no use in the sandbox.

    Raises:
        SyntaxError: A module is not Python.
    """
    notes = []
    for path in sorted(code.rglob("*.py")):
        name = str(path.relative_to(code))
        tree = ast.parse(path.read_bytes(), filename=name)
        if not name.startswith("site-packages/"):
            notes += [
                f"{name}:{line} imports {module}: {_USELESS[module]}" for line, module in _imports(tree)
            ]
    return notes[:_MAX_NOTES]


def describe_failure(error: BaseException) -> str:
    """What was raised, with its text and where; leaves only while the tenant has debugging on."""
    lines = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in _frames(error)]
    return f"{type(error).__name__}: {error} ({' > '.join(lines)})"[:MAX_DETAIL_CHARS]


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    # Without source lines: they are not read, and nothing of this package is of interest.
    found = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    return [frame for frame in found if "cloister_host" not in frame.filename]


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            plain = name in _FINE or name.rpartition(".")[0] in _FINE
            if name.split(".")[0] in _USELESS and not plain:
                yield node.lineno, name.split(".")[0]
