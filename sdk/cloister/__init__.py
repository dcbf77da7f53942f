"""Serverless functions that work on data they can never read.

`Client` seals values, opens them, and calls confidential functions in an enclave host that it has
appraised first. Everything here is imported on first use, so `import cloister` costs next to nothing
and the host never loads the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AsyncClient": "cloister.aio",
    "BatchReply": "cloister.reply",
    "Job": "cloister.reply",
    "Client": "cloister.client",
    "CloisterError": "cloister.errors",
    "Receipt": "cloister.receipts",
    "Reply": "cloister.reply",
    "Sealed": "cloister.envelope",
    "Secret": "cloister.secret",
    "Settings": "cloister.config",
    "Token": "cloister.reply",
}

__all__ = [
    "AsyncClient",
    "BatchReply",
    "Client",
    "CloisterError",
    "Job",
    "Receipt",
    "Reply",
    "Sealed",
    "Secret",
    "Settings",
    "Token",
    "__version__",
]

if TYPE_CHECKING:
    from cloister.aio import AsyncClient
    from cloister.client import Client
    from cloister.config import Settings
    from cloister.envelope import Sealed
    from cloister.errors import CloisterError
    from cloister.receipts import Receipt
    from cloister.reply import BatchReply, Job, Reply, Token
    from cloister.secret import Secret


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'cloister' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
