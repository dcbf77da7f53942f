"""Hostile functions in the real sandbox."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import CloisterError, ConfigurationError
from cloister.function.bundle import build_bundle
from cloister.function.manifest import Manifest
from cloister_host.functions.frames import Answer, Ask
from cloister_host.functions.sandbox import Job
from cloister_host.functions.sandbox.namespaces import NamespaceSandbox
from cloister_host.functions.workers import Pool, WorkerKey
from support import require

HEAD = """
import ctypes, errno, gc, os, signal, socket, struct, sys, threading, time
from cloister.function import Limits, Origin, function, origin, text

def syscall(number, *arguments):
    '''A raw system call: what it gives, or the name of its error.'''
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(*map(ctypes.c_long, (number, *arguments)))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else f"gave {result}"

def attempt(action):
    '''What an action gives, or the name of its error.'''
    try:
        return f"gave {action()!r}"
    except OSError as error:
        return errno.errorcode.get(error.errno, "OSError")
    except BaseException as error:
        return type(error).__name__

state = {}

@function("f", output=text(max_chars=9999), egress={"partner": origin("https://partner.example")},
          limits=Limits(timeout_seconds=3, memory_mib=MEMORY))
def f(value: str, *, partner: Origin) -> str:
"""


class Closed:
    """A door that leads nowhere."""

    def ask(self, request: Ask, *, deadline: float) -> Answer:
        raise CloisterError("closed")


class Prison:
    """Runs function bodies, each a bundle of its own, for whichever tenant and principal."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder
        self._loaded: dict[str, Callable[[str], tuple[Job, Manifest]]] = {}
        self._digests: dict[str, str] = {}
        self._preparing = threading.Lock()

    def run(
        self, body: str, value: str = "v", *, tenant: str = "evil", principal: str = "p", memory_mib: int = 64
    ) -> Any:
        """Run a body once."""
        key, load = self._prepare(body, tenant, principal, memory_mib)
        with self.pool.worker(key, load) as worker:
            return worker.call({"value": value}, Closed())

    def _prepare(
        self, body: str, tenant: str, principal: str, memory_mib: int
    ) -> tuple[WorkerKey, Callable[[], tuple[Job, Manifest]]]:
        with self._preparing:
            if body not in self._digests:
                folder = self._folder / str(len(self._digests))
                folder.mkdir()
                lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
                (folder / "function.py").write_text(HEAD.replace("MEMORY", str(memory_mib)) + lines + "\n")
                bundle = build_bundle(folder)
                self._digests[body] = bundle.digest
                self._loaded[body] = lambda owner: (Job.of(owner, bundle), bundle.manifest)
        return WorkerKey(tenant, self._digests[body], principal), lambda: self._loaded[body](tenant)

    def serves_others(self) -> bool:
        """Whether another tenant is served meanwhile."""
        return bool(self.run("return value.upper()", "ok", tenant="good") == "OK")


@pytest.fixture(scope="module")
def prison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prison]:
    try:
        sandbox = NamespaceSandbox()
    except ConfigurationError as error:
        require.missing("the namespaces sandbox", install=str(error))
    pool = Pool(sandbox, max_workers=8, max_busy_per_tenant=4)
    yield Prison(pool, tmp_path_factory.mktemp("prison"))
    pool.close()


@pytest.fixture(autouse=True)
def others_are_served(prison: Prison) -> Iterator[None]:
    """After every attack the host still serves."""
    yield
    assert prison.serves_others()
