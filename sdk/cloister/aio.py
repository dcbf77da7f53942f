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

from cloister._flows import Context, Flow, Flows, T, bound_context, in_parts
from cloister._host import RENEWAL_TIMEOUT_SECONDS
from cloister._keys import AsyncKeyOperations
from cloister.attestation import AppraisalPolicy
from cloister.client import JOSE_TYPE, JSON_TYPE, challenge_body, policy_from
from cloister.config import Settings
from cloister.envelope import Sealed, Value
from cloister.errors import CloisterError, UnavailableError
from cloister.head_file import head_keeper
from cloister.identity import Identity, identity_from
from cloister.objects import (
    FRAME_BYTES,
    ObjectHeader,
    Progress,
    Readable,
    Writable,
    open_stream,
    read_header,
    seal_stream,
)
from cloister.protocol.attest import AttestationResult
from cloister.protocol.public_key import PublicKey
from cloister.protocol.session import Attest, Authenticate, Response, Send, Wait
from cloister.receipts import TreeHead
from cloister.reply import BatchReply, Job, Reply, Results, Token
from cloister.telemetry import operation
from cloister.transport import AsyncTransport, TransportError

__all__ = ["AsyncClient"]


class AsyncClient(AsyncKeyOperations):
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

    async def seal(
        self,
        value: Value,
        *,
        key: str,
        context: Context | None = None,
        key_context: Context | None = None,
        signer: Mapping[str, Any] | None = None,
    ) -> Sealed:
        """Seal one value; see `Client.seal`."""
        contexts = None if context is None else [context]
        return (
            await self.seal_many([value], key=key, contexts=contexts, key_context=key_context, signer=signer)
        )[0]

    async def seal_many(
        self,
        values: Sequence[Value],
        *,
        key: str,
        contexts: Sequence[Context | None] | None = None,
        key_context: Context | None = None,
        signer: Mapping[str, Any] | None = None,
    ) -> list[Sealed]:
        """Seal many values; see `Client.seal_many`."""
        return await self._run(
            self._flows.seal_many(values, key=key, contexts=contexts, key_context=key_context, signer=signer)
        )

    async def open(self, sealed: str, *, context: Context | None = None, purpose: str | None = None) -> Value:
        """Have the host open one value; see `Client.open`."""
        return (
            await self.open_many([sealed], contexts=None if context is None else [context], purpose=purpose)
        )[0]

    async def open_many(
        self,
        values: Sequence[str],
        *,
        contexts: Sequence[Context | None] | None = None,
        purpose: str | None = None,
    ) -> Results[Value]:
        """Have the host open many values; see `Client.open_many`."""
        return await self._run(self._flows.open_many(values, contexts=contexts, purpose=purpose))

    async def open_column(
        self, values: Sequence[str], *, contexts: Sequence[Context | None] | None = None
    ) -> list[Value]:
        """Open many values here; see `Client.open_column`."""
        return await self._run(self._flows.open_column(values, contexts=contexts))

    async def public_key(self, key: str) -> PublicKey:
        """The public half of a key; see `Client.public_key`."""
        return await self._run(self._flows.public_key(key))

    async def seal_object(
        self,
        source: Readable,
        sink: Writable,
        *,
        key: str,
        context: Context | None = None,
        key_context: Context | None = None,
        cty: str | None = None,
        frame_bytes: int = FRAME_BYTES,
        progress: Progress | None = None,
    ) -> ObjectHeader:
        """Seal a file or stream of any size in a thread; see `Client.seal_object`."""
        object_key = await self._run(self._flows.object_key(key, key_context=key_context))
        return await asyncio.to_thread(
            seal_stream,
            source,
            sink,
            object_key,
            frame_bytes=frame_bytes,
            cty=cty,
            context=bound_context(context, key_context),
            progress=progress,
        )

    async def open_object(
        self,
        source: Readable,
        sink: Writable,
        *,
        context: Context | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Open a sealed object in a thread; see `Client.open_object`."""
        header = await asyncio.to_thread(read_header, source)
        cek = await self._run(self._flows.object_cek(header))
        return await asyncio.to_thread(
            open_stream, source, sink, lambda _: cek, context=context, progress=progress, header=header
        )

    async def invoke(
        self,
        function: str,
        /,
        *,
        context: Context | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **inputs: Any,
    ) -> Reply:
        """Call a confidential function; see `Client.invoke`."""
        return await self._run(
            self._flows.invoke(
                function, inputs, context=context, idempotency_key=idempotency_key, purpose=purpose
            )
        )

    async def start(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Any] | None = None,
        batch: bool = False,
        idempotency_key: str | None = None,
        **inputs: Any,
    ) -> Job:
        """Call a function without waiting for it; see `Client.start`."""
        return await self._run(
            self._flows.start(function, inputs, context=context, batch=batch, idempotency_key=idempotency_key)
        )

    async def job(self, job: Job | str) -> Job:
        """How far a job is; see `Client.job`."""
        return await self._run(self._flows.job("job.get", job))

    async def wait(self, job: Job | str, *, timeout_seconds: float = 300.0) -> Job:
        """Ask after a job until it has ended; see `Client.wait`."""
        return await self._run(self._flows.wait(job, timeout_seconds=timeout_seconds))

    async def cancel(self, job: Job | str) -> Job:
        """End a job; see `Client.cancel`."""
        return await self._run(self._flows.job("job.cancel", job))

    async def invoke_batch(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        **columns: Sequence[Any],
    ) -> BatchReply:
        """Call a batch function; see `Client.invoke_batch`."""
        return await self._run(
            self._flows.invoke_batch(function, columns, context=context, idempotency_key=idempotency_key)
        )

    async def invoke_stream(
        self,
        function: str,
        /,
        rows: Iterable[Mapping[str, Any]],
        *,
        context: Sequence[str] = (),
        rows_per_request: int = 10_000,
        idempotency_key: str | None = None,
    ) -> AsyncIterator[BatchReply]:
        """Call a batch function on any number of rows; see `Client.invoke_stream`."""
        key = idempotency_key or secrets.token_urlsafe(16)
        for number, part in enumerate(in_parts(rows, rows_per_request)):
            flow = self._flows.stream(function, part, context, idempotency_key=f"{key}.{number}")
            replies, error = await self._run(flow)
            for reply in replies:
                yield reply
            if error is not None:
                raise error

    async def tokenize(
        self, policy: str, values: Sequence[str], *, idempotency_key: str | None = None
    ) -> Results[Token]:
        """Replace values by tokens of a policy; see `Client.tokenize`."""
        payload = {"policy": policy, "values": list(values)}
        result = await self.call("token.tokenize", payload, idempotency_key=idempotency_key)
        return Results(map(Token, result["tokens"]), of=[result])

    async def detokenize(
        self, policy: str, tokens: Sequence[str], *, purpose: str | None = None
    ) -> Results[str | None]:
        """Give the values behind tokens; see `Client.detokenize`."""
        result = await self.call(
            "token.detokenize", {"policy": policy, "tokens": list(tokens)}, purpose=purpose
        )
        return Results(result["values"], of=[result])

    async def call(
        self,
        op: str,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Mapping[str, Any]:
        """Any operation of the host by name; see `Client.call`."""
        return await self._run(
            self._flows.call(op, payload, idempotency_key=idempotency_key, purpose=purpose)
        )

    async def attest(self) -> AttestationResult:
        """Appraise the host now, and return what was checked and what was not."""
        return await self._run(self._flows.attest())

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
            with operation("attest") as told:
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
