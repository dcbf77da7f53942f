"""The client for asyncio; the same protocol and the same operations as `Client` (extra `async`)."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloister import telemetry
from cloister._host import RENEWAL_TIMEOUT_SECONDS
from cloister.attestation import AppraisalPolicy
from cloister.client import JOSE_TYPE, JSON_TYPE, challenge_body, policy_from
from cloister.config import Settings
from cloister.errors import CloisterError, UnavailableError
from cloister.head_file import head_keeper
from cloister.identity import Identity, identity_from
from cloister.operations import (
    FunctionOperations,
    HostOperations,
    KeyOperations,
    ObjectOperations,
    TokenOperations,
    ValueOperations,
)
from cloister.operations.driving import Flow, T, awaited
from cloister.operations.flows import Flows
from cloister.operations.functions import ROWS_PER_REQUEST, in_parts, stream
from cloister.protocol.attest import AttestationResult
from cloister.protocol.session import Attest, Authenticate, Response, Send, Wait, Work
from cloister.receipts import TreeHead
from cloister.reply import BatchReply
from cloister.transport import AsyncTransport, TransportError

__all__ = ["AsyncClient"]


class AsyncClient:
    """A tenant's client of an enclave host, for one event loop. See `Client` for the operations."""

    def __init__(
        self,
        *,
        tenant: str,
        policy: AppraisalPolicy,
        identity: Identity,
        transport: AsyncTransport,
        timeout_seconds: float = 60.0,
        head_file: Path | None = None,
        witness: str | None = None,
    ) -> None:
        self._flows = Flows(
            tenant=tenant,
            identity=identity,
            policy=policy,
            clock=time.time,
            jitter=random.random,
            heads=head_keeper(head_file, witness),
        )
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._attesting = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    def from_env(cls, *, transport: AsyncTransport | None = None, **settings: Any) -> Self:
        """Make a client from explicit settings, the environment and `cloister.toml`, in that order."""
        from cloister.transport.httpx import HttpxTransport  # noqa: PLC0415 (httpx is an extra)

        loaded = Settings.load(**settings)
        return cls(
            tenant=loaded.tenant,
            policy=policy_from(loaded.policy),
            identity=identity_from(loaded),
            transport=transport or HttpxTransport(loaded.url),
            timeout_seconds=loaded.timeout_seconds,
            head_file=loaded.head_file,
            witness=loaded.witness,
        )

    seal = awaited(ValueOperations.seal)
    seal_many = awaited(ValueOperations.seal_many)
    open = awaited(ValueOperations.open)
    open_many = awaited(ValueOperations.open_many)
    open_column = awaited(ValueOperations.open_column)
    public_key = awaited(ValueOperations.public_key)

    seal_object = awaited(ObjectOperations.seal_object)
    open_object = awaited(ObjectOperations.open_object)

    invoke = awaited(FunctionOperations.invoke)
    invoke_batch = awaited(FunctionOperations.invoke_batch)
    start = awaited(FunctionOperations.start)
    job = awaited(FunctionOperations.job)
    wait = awaited(FunctionOperations.wait)
    cancel = awaited(FunctionOperations.cancel)

    tokenize = awaited(TokenOperations.tokenize)
    detokenize = awaited(TokenOperations.detokenize)

    encrypt = awaited(KeyOperations.encrypt)
    encrypt_many = awaited(KeyOperations.encrypt_many)
    decrypt = awaited(KeyOperations.decrypt)
    decrypt_many = awaited(KeyOperations.decrypt_many)
    mac = awaited(KeyOperations.mac)
    sign = awaited(KeyOperations.sign)
    verify = awaited(KeyOperations.verify)
    rewrap = awaited(KeyOperations.rewrap)
    random = awaited(KeyOperations.random)
    import_key = awaited(KeyOperations.import_key)
    export_key = awaited(KeyOperations.export_key)

    call = awaited(HostOperations.call)
    attest = awaited(HostOperations.attest)

    async def invoke_stream(
        self,
        function: str,
        /,
        rows: Iterable[Mapping[str, Any]],
        *,
        context: Sequence[str] = (),
        rows_per_request: int = ROWS_PER_REQUEST,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> AsyncIterator[BatchReply]:
        """Call a batch function on any number of rows; see `Client.invoke_stream`."""
        key = idempotency_key or secrets.token_urlsafe(16)
        for number, part in enumerate(in_parts(rows, rows_per_request)):
            replies, error = await self._run(
                stream(
                    self._flows, function, part, context, idempotency_key=f"{key}.{number}", purpose=purpose
                )
            )
            for reply in replies:
                yield reply
            if error is not None:
                raise error

    @property
    def tree_head(self) -> TreeHead | None:
        """The last head of the host's audit log; see `Client.tree_head`."""
        return self._flows.tree_head()

    def forget(self) -> None:
        """Drop keyset and data keys, as after a snapshot was restored."""
        self._flows.forget()

    async def aclose(self) -> None:
        """Close connections and drop data keys."""
        if self._renewal is not None:
            self._renewal.cancel()
        self.forget()
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        if self._flows.host.renewal_due():
            self._renewal = asyncio.create_task(self._renew())
        outcome: Any = None
        try:
            while True:
                match flow.send(outcome):
                    case Attest() as step:
                        outcome = await self._attest(step)
                    case Authenticate() as step:
                        # Most identities ask somebody over the network for a token now and then.
                        outcome = await asyncio.to_thread(self._flows.credential, step)
                    case Send() as step:
                        outcome = await self._post("/v1/sealed", step.body, JOSE_TYPE)
                    case Wait() as step:
                        await asyncio.sleep(step.seconds)
                        outcome = None
                    case Work() as step:
                        outcome = await asyncio.to_thread(step.do)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def _attest(
        self, step: Attest, *, timeout_seconds: float | None = None
    ) -> AttestationResult | None:
        """Appraise the host, in one flight for everybody who asks meanwhile."""
        host = self._flows.host
        known = host.known(step)
        if known is not None:
            return known
        flights = host.flights
        async with self._attesting:
            known = host.known(step)
            if known is not None:
                return known
            if host.flights != flights:
                return host.outcome()
            nonce = host.challenge()
            body = challenge_body(nonce)
            with telemetry.operation("attest") as told:
                answer = await self._post("/v1/attestation", body, JSON_TYPE, timeout_seconds)
                accepted = host.accept(answer, nonce)
                if accepted is None:
                    told.failed(UnavailableError.code)
                return accepted

    async def _renew(self) -> None:
        """Appraise the host before its keyset ends; if that fails, a later call will say why."""
        with suppress(CloisterError):
            await self._attest(Attest(fresh=True), timeout_seconds=RENEWAL_TIMEOUT_SECONDS)

    async def _post(
        self, path: str, body: bytes, content_type: str, timeout_seconds: float | None = None
    ) -> Response | None:
        timeout = min(self._timeout_seconds, timeout_seconds or self._timeout_seconds)
        try:
            return await self._transport.post(path, body, content_type=content_type, timeout_seconds=timeout)
        except TransportError:
            return None
