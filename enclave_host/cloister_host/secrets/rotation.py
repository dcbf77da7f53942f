"""Rotation of secrets by confidential functions: the new value never leaves the host in the clear.

The function asks whoever issues the secret for a new one, through its declared egress, and returns it;
its output class seals the answer under the key that the rotation names. The host opens that answer and
keeps it as the next version, in the transaction in which the invocation ends.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec
import structlog

from cloister.envelope import Sealed
from cloister.errors import CloisterError, FunctionError, OpenError
from cloister.jose import b64url_encode
from cloister_host.audit import Audit
from cloister_host.functions.messages import BatchInvoked, Invoke, Invoked
from cloister_host.functions.ports import Act
from cloister_host.identity.caller import Caller
from cloister_host.identity.records import PRINCIPALS
from cloister_host.keymanager.manager import KeyManager
from cloister_host.operations import Operation
from cloister_host.secrets.messages import SecretInfo, SecretName
from cloister_host.secrets.records import Rotation
from cloister_host.secrets.service import Secrets
from cloister_host.store import Tx

__all__ = ["SecretRotation"]

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 600


class _Invocation(Protocol):
    """Port: how confidential functions are run."""

    def invoke(self, caller: Caller, request: Invoke, act: Act) -> Invoked | BatchInvoked:
        """Run one for a caller."""
        ...


class SecretRotation:
    """Rotates secrets on demand and by schedule."""

    def __init__(
        self,
        *,
        secrets: Secrets,
        invocation: _Invocation,
        keys: KeyManager,
        audit: Audit,
        begin: Callable[[], AbstractContextManager[Tx]],
    ) -> None:
        self._secrets = secrets
        self._invocation = invocation
        self._keys = keys
        self._audit = audit
        self._begin = begin

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {"secret.rotate": Operation(SecretName, self.rotate, effect=True, staged=True)}

    def rotate(self, caller: Caller, request: SecretName, act: Act) -> SecretInfo:
        """Have the next version made now.

        It takes the rights `secret.manage` on it, `invoke` on its function and `decrypt` under its key.

        Raises:
            ConfigurationError: There is no such secret, or it has no rotation.
            FunctionError: The function failed, or its answer is no sealed secret.
        """
        with act.begin() as tx:
            row = self._secrets.rotation(tx, caller, request.secret)
            self._secrets.lease_rotation(tx, row, seconds=LEASE_SECONDS)
            rotation = row.record.rotation
        assert rotation is not None, "the service found one"
        keeping = _Keeping(self, act, caller, request.secret, rotation)
        try:
            self._invocation.invoke(caller, _invoke(rotation, request.secret), keeping)
        except CloisterError:
            with act.begin() as tx:
                self._secrets.release_rotation(tx, caller.tenant, request.secret)
            raise
        assert keeping.info is not None, "an invocation that ends well has finished its act"
        return keeping.info

    def rotate_due(self, tenant: str) -> None:
        """Rotate what is due in a tenant; for the scheduler. What fails is tried again after ten minutes."""
        with self._begin() as tx:
            rows = self._secrets.due(tx, tenant)
            for row in rows:
                self._secrets.lease_rotation(tx, row, seconds=LEASE_SECONDS)
        for row in rows:
            rotation = row.record.rotation
            assert rotation is not None, "only a secret with a rotation is due"
            caller = Caller(
                tenant=tenant,
                principal=rotation.principal,
                kind=rotation.kind,
                correlation_id=secrets.token_hex(8),
            )
            act = _Scheduled(self._begin, f"{tenant}/{row.id}/{row.record.latest}")
            try:
                self._check(caller)
                keeping = _Keeping(self, act, caller, row.id, rotation)
                self._invocation.invoke(caller, _invoke(rotation, row.id), keeping)
            except CloisterError as error:
                log.warning("secret.rotation_failed", code=error.code)
                with self._begin() as tx:
                    detail = {"function": rotation.function, "error": error.code}
                    self._audit.record(
                        tx,
                        caller,
                        act="secret.rotate",
                        resource=f"secret/{row.id}",
                        outcome="failed",
                        detail=detail,
                    )

    def keep(self, tx: Tx, caller: Caller, name: str, rotation: Rotation, value: object) -> SecretInfo:
        """Open a function's answer, and keep it as the next version.

        Raises:
            DeniedError: The principal of the rotation may not open under its key any more.
            FunctionError: It is not a text or bytes sealed under the rotation's key.
        """
        self._secrets.require_opening(tx, caller, rotation.key)
        text = value if isinstance(value, str) else ""
        [opened] = self._keys.open_granted(tx, caller.tenant, [text], None, keys=frozenset({rotation.key}))
        if isinstance(opened, OpenError) or not isinstance(opened, str | bytes) or not opened:
            raise FunctionError(
                "the function's answer is no secret",
                hint=f"its output is text sealed under {rotation.key}, without context",
            )
        octets = opened.encode() if isinstance(opened, str) else opened
        info = self._secrets.add(tx, caller.tenant, name, octets, rotated=True)
        self._audit.record(
            tx,
            caller,
            act="secret.rotate",
            resource=f"secret/{name}",
            detail={"version": info.version, "function": rotation.function, "kid": Sealed(text).kid},
        )
        return info

    def _check(self, caller: Caller) -> None:
        """Whoever asked for the rotation must still be there; what it may do is asked by the invocation."""
        with self._begin() as tx:
            row = tx.get(PRINCIPALS, caller.tenant, caller.principal)
        if row is None or row.record.state != "active" or row.record.kind != caller.kind:
            raise FunctionError("the principal that asked for the rotation is gone")


class _Keeping:
    """An act whose result is kept as a secret, and never answered."""

    def __init__(
        self, service: SecretRotation, act: Act, caller: Caller, name: str, rotation: Rotation
    ) -> None:
        self._service = service
        self._act = act
        self._caller = caller
        self._name = name
        self._rotation = rotation
        self.length = 0
        self.info: SecretInfo | None = None

    @property
    def request_digest(self) -> str:
        return self._act.request_digest

    def begin(self) -> AbstractContextManager[Tx]:
        return self._act.begin()

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        value = result.value if isinstance(result, Invoked) else None
        self.info = self._service.keep(tx, self._caller, self._name, self._rotation, value)
        self._act.finish(tx, self.info)


class _Scheduled:
    """An act that nobody asked for, so that nobody waits for its answer."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Tx]], what: str) -> None:
        self._begin = begin
        self.length = 0
        self.request_digest = b64url_encode(hashlib.sha256(f"scheduled:{what}".encode()).digest())

    def begin(self) -> AbstractContextManager[Tx]:
        return self._begin()

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        """Nobody repeats it."""


def _invoke(rotation: Rotation, name: str) -> Invoke:
    return Invoke(function=rotation.function, inputs={"secret": name})
