"""The client: seals, opens, and calls confidential functions in a host it has appraised."""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloister import jose
from cloister._flows import Context, Flow, Flows, T, bound_context, in_parts
from cloister._host import RENEWAL_TIMEOUT_SECONDS
from cloister._keys import KeyOperations
from cloister.attestation import AppraisalPolicy
from cloister.config import Settings
from cloister.envelope import Sealed, Value
from cloister.envelope.process import epoch
from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister.head_file import head_keeper
from cloister.identity import Identity, identity_from
from cloister.objects import (
    FRAME_BYTES,
    PART_BYTES,
    Journal,
    ObjectHeader,
    ObjectReader,
    ObjectSealer,
    ObjectStore,
    Progress,
    RangeSource,
    Readable,
    UploadState,
    Writable,
    open_stream,
    seal_stream,
    upload_object,
)
from cloister.protocol.attest import AttestationResult
from cloister.protocol.public_key import PublicKey
from cloister.protocol.session import Attest, Authenticate, Response, Send, Wait
from cloister.receipts import TreeHead
from cloister.reply import BatchReply, Job, Reply, Results, Token
from cloister.secret import Secret
from cloister.telemetry import operation
from cloister.transport import Transport, TransportError
from cloister.transport.stdlib import HttpTransport

__all__ = ["Client", "policy_from"]

MAX_POLICY_BYTES = 1024 * 1024
JOSE_TYPE = "application/jose"
JSON_TYPE = "application/json"


class Client(KeyOperations):
    """A tenant's client of an enclave host, safe to share between threads.

    Nothing is sent before the host's evidence was appraised; that happens on the first call, and
    again whenever the host's keys change.
    """

    def __init__(
        self,
        *,
        tenant: str,
        policy: AppraisalPolicy,
        identity: Identity,
        transport: Transport,
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
        self._attesting = threading.Lock()
        self._attesting_in = epoch()

    @classmethod
    def from_env(cls, *, transport: Transport | None = None, **settings: Any) -> Self:
        """Make a client from explicit settings, the environment and `cloister.toml`, in that order.

        Raises:
            ConfigurationError: A setting is missing or cannot be used.
        """
        loaded = Settings.load(**settings)
        return cls(
            tenant=loaded.tenant,
            policy=policy_from(loaded.policy),
            identity=identity_from(loaded),
            transport=transport or HttpTransport(loaded.url),
            timeout_seconds=loaded.timeout_seconds,
            head_file=loaded.head_file,
            witness=loaded.witness,
        )

    # --- values ---

    def seal(
        self,
        value: Value,
        *,
        key: str,
        context: Context | None = None,
        key_context: Context | None = None,
        signer: Mapping[str, Any] | None = None,
    ) -> Sealed:
        """Seal one value under a tenant's key.

        Args:
            value: bytes, text or JSON; opens as the same type.
            key: Name of a key with purpose `seal`.
            context: What the value belongs to, for example `{"customer": "17"}`; the value opens only
                where the same context is given.
            key_context: The part of the context that all values of one data key share.
            signer: Private key (JWK) of a registered author, for functions that ask who wrote a value;
                what opens is then the signed statement (`cloister.envelope.open_authored`).

        Raises:
            DeniedError: No grant for `seal` on this key.
        """
        contexts = None if context is None else [context]
        return self.seal_many([value], key=key, contexts=contexts, key_context=key_context, signer=signer)[0]

    def seal_many(
        self,
        values: Sequence[Value],
        *,
        key: str,
        contexts: Sequence[Context | None] | None = None,
        key_context: Context | None = None,
        signer: Mapping[str, Any] | None = None,
    ) -> list[Sealed]:
        """Seal many values; `contexts` holds one context a value. See `seal`."""
        return self._run(
            self._flows.seal_many(values, key=key, contexts=contexts, key_context=key_context, signer=signer)
        )

    def open(self, sealed: str, *, context: Context | None = None, purpose: str | None = None) -> Value:
        """Have the host open one value (right `decrypt`).

        Raises:
            OpenError: Wrong context, key or value.
            DeniedError: No grant for `decrypt` on the value's key.
        """
        return self.open_many([sealed], contexts=None if context is None else [context], purpose=purpose)[0]

    def open_many(
        self,
        values: Sequence[str],
        *,
        contexts: Sequence[Context | None] | None = None,
        purpose: str | None = None,
    ) -> Results[Value]:
        """Have the host open many values (right `decrypt`, one audit entry a value). See `open`."""
        return self._run(self._flows.open_many(values, contexts=contexts, purpose=purpose))

    def open_column(
        self, values: Sequence[str], *, contexts: Sequence[Context | None] | None = None
    ) -> list[Value]:
        """Open many values here, under data keys that the host unwraps (right `unwrap`)."""
        return self._run(self._flows.open_column(values, contexts=contexts))

    def public_key(self, key: str) -> PublicKey:
        """The public half of a key, for `cloister.envelope.seal_to` on machines without a host."""
        return self._run(self._flows.public_key(key))

    # --- objects ---

    def seal_object(
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
        """Seal a file or stream of any size, in constant memory. See `cloister.objects`.

        Args:
            source: What is read, to its end.
            sink: Where the sealed object is written.
            key: Name of a key with purpose `seal`.
            context: As in `seal`.
            key_context: As in `seal`.
            cty: The media type; everybody can read it.
            frame_bytes: What is read and authenticated at once, 4 KiB to 16 MiB.
            progress: Told how many bytes are done.

        Raises:
            DeniedError: No grant for `seal` on this key.
        """
        object_key = self._run(self._flows.object_key(key, key_context=key_context))
        bound = bound_context(context, key_context)
        return seal_stream(
            source, sink, object_key, frame_bytes=frame_bytes, cty=cty, context=bound, progress=progress
        )

    def upload_object(
        self,
        source: Readable,
        store: ObjectStore,
        name: str,
        *,
        key: str,
        context: Context | None = None,
        cty: str | None = None,
        only_new: bool = False,
        part_bytes: int = PART_BYTES,
        journal: Journal | None = None,
        resume: UploadState | None = None,
        progress: Progress | None = None,
    ) -> ObjectHeader:
        """Seal a source into a bucket, part by part; see `cloister.objects.upload_object`.

        To go on with an upload of an earlier process (`resume`) the right `unwrap` is needed, since no key
        outlives a process.

        Args:
            source: What is read, from its beginning also when the upload goes on.
            store: For example `cloister_aws.objects.S3ObjectStore("bucket")`.
            name: The object's name in it, which is public.
            key: Name of a key with purpose `seal`.
            context: As in `seal`.
            cty: The media type; everybody can read it.
            only_new: Refuse to replace an object.
            part_bytes: Bytes of a part, a multiple of 256 KiB, at least 5 MiB.
            journal: Told what `resume` needs, before and after each part.
            resume: What the journal of an interrupted upload was told last.
            progress: Told how many bytes of the sealed object are stored.
        """

        def seal(begun: ObjectHeader | None) -> ObjectSealer:
            if begun is not None:
                return ObjectSealer.again(begun, self._recover(begun), context=context)
            object_key = self._run(self._flows.object_key(key, key_context=None))
            return ObjectSealer(object_key, cty=cty, context=context)

        return upload_object(
            source,
            store,
            name,
            seal,
            only_new=only_new,
            part_bytes=part_bytes,
            journal=journal,
            resume=resume,
            progress=progress,
        )

    def open_object(
        self,
        source: Readable,
        sink: Writable,
        *,
        context: Context | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Open a sealed object here, under a data key that the host unwraps (right `unwrap`).

        That the object is whole is known at its end only: on an error, drop what was written.

        Returns:
            How many bytes were written.

        Raises:
            OpenError: Wrong context, key or object.
            DeniedError: No grant for `unwrap` on the object's key.
        """
        return open_stream(source, sink, self._recover, context=context, progress=progress)

    def object_reader(self, source: RangeSource, *, context: Context | None = None) -> ObjectReader:
        """Read any part of a sealed object as a seekable file (right `unwrap`); errors as `open_object`."""
        return ObjectReader(source, self._recover, context=context)

    def _recover(self, header: ObjectHeader) -> Secret:
        return self._run(self._flows.object_cek(header))

    # --- confidential functions and tokens ---

    def invoke(
        self,
        function: str,
        /,
        *,
        context: Context | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **inputs: Any,
    ) -> Reply:
        """Call a confidential function.

        Args:
            function: `name@alias`, or `name@DIGEST` (64 hexadecimal digits) for one digest.
            context: Values for the context names that the function's manifest asks for.
            idempotency_key: Constant over the caller's own retries; effects happen once under it.
            purpose: What for. It is recorded, and grants can depend on it.
            inputs: The function's inputs by name.

        Raises:
            FunctionError: The function failed or broke its output class.
        """
        return self._run(
            self._flows.invoke(
                function, inputs, context=context, idempotency_key=idempotency_key, purpose=purpose
            )
        )

    def start(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Any] | None = None,
        batch: bool = False,
        idempotency_key: str | None = None,
        **inputs: Any,
    ) -> Job:
        """Call a function without waiting for it.

        Args:
            function: As in `invoke`.
            context: As in `invoke`, or as in `invoke_batch`.
            batch: Whether the inputs are columns.
            idempotency_key: A second start under it gives the first one's job.
            inputs: The function's inputs by name.
        """
        return self._run(
            self._flows.start(function, inputs, context=context, batch=batch, idempotency_key=idempotency_key)
        )

    def job(self, job: Job | str) -> Job:
        """How far a job is, with its reply once it is done."""
        return self._run(self._flows.job("job.get", job))

    def wait(self, job: Job | str, *, timeout_seconds: float = 300.0) -> Job:
        """Ask after a job until it has ended, or the time is up; see `Job.result`."""
        return self._run(self._flows.wait(job, timeout_seconds=timeout_seconds))

    def cancel(self, job: Job | str) -> Job:
        """End a job; what it has done outside before stays done."""
        return self._run(self._flows.job("job.cancel", job))

    def invoke_batch(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        **columns: Sequence[Any],
    ) -> BatchReply:
        """Call a batch function: one column an input, one context column a context name."""
        return self._run(
            self._flows.invoke_batch(function, columns, context=context, idempotency_key=idempotency_key)
        )

    def invoke_stream(
        self,
        function: str,
        /,
        rows: Iterable[Mapping[str, Any]],
        *,
        context: Sequence[str] = (),
        rows_per_request: int = 10_000,
        idempotency_key: str | None = None,
    ) -> Iterator[BatchReply]:
        """Call a batch function on any number of rows, in constant memory.

        Takes rows from their source as they are needed, and gives one reply for each thousand or fewer,
        in order. What was answered is not computed again when the same rows are sent under the same
        `idempotency_key`: so a stream that broke off is taken up by sending it again.

        Args:
            function: As in `invoke`.
            rows: Each row as inputs and context values by name.
            context: Which of these names are context names.
            rows_per_request: How many rows are held at a time.
            idempotency_key: Of the whole stream.

        Raises:
            CloisterError: What ended the stream; the replies before it have been given.
        """
        key = idempotency_key or secrets.token_urlsafe(16)
        for number, part in enumerate(in_parts(rows, rows_per_request)):
            flow = self._flows.stream(function, part, context, idempotency_key=f"{key}.{number}")
            replies, error = self._run(flow)
            yield from replies
            if error is not None:
                raise error

    def tokenize(
        self, policy: str, values: Sequence[str], *, idempotency_key: str | None = None
    ) -> Results[Token]:
        """Replace values by tokens of a policy."""
        payload = {"policy": policy, "values": list(values)}
        result = self.call("token.tokenize", payload, idempotency_key=idempotency_key)
        return Results(map(Token, result["tokens"]), of=[result])

    def detokenize(
        self, policy: str, tokens: Sequence[str], *, purpose: str | None = None
    ) -> Results[str | None]:
        """Give the values behind tokens, masked as the policy says; `None` where there is none."""
        result = self.call("token.detokenize", {"policy": policy, "tokens": list(tokens)}, purpose=purpose)
        return Results(result["values"], of=[result])

    # --- administration ---

    def call(
        self,
        op: str,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Mapping[str, Any]:
        """Any operation of the host by name, for example `key.create`; `/openapi.json` lists them.

        Args:
            op: Its name.
            payload: What it takes.
            idempotency_key: Constant over the caller's own retries; effects happen once under it.
            purpose: What for. It is recorded, and grants can depend on it.
        """
        return self._run(self._flows.call(op, payload, idempotency_key=idempotency_key, purpose=purpose))

    def attest(self) -> AttestationResult:
        """Appraise the host now, and return what was checked and what was not."""
        return self._run(self._flows.attest())

    @property
    def tree_head(self) -> TreeHead | None:
        """The last head of the host's audit log that was accepted; None before the first reply."""
        return self._flows.tree_head()

    def forget(self) -> None:
        """Drop keyset and data keys, as after a snapshot was restored."""
        self._flows.forget()

    def close(self) -> None:
        """Close idle connections and drop data keys."""
        self.forget()
        close = getattr(self._transport, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the driver ---

    def _run(self, flow: Flow[T]) -> T:
        if self._flows.host.renewal_due():
            threading.Thread(target=self._renew, name="cloister-renewal", daemon=True).start()
        outcome: Any = None
        try:
            while True:
                match flow.send(outcome):
                    case Attest() as step:
                        outcome = self._attest(step)
                    case Authenticate() as step:
                        outcome = self._flows.credential(step)
                    case Send() as step:
                        outcome = self._post("/v1/sealed", step.body, JOSE_TYPE)
                    case Wait() as step:
                        time.sleep(step.seconds)
                        outcome = None
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _attest(self, step: Attest, *, timeout_seconds: float | None = None) -> AttestationResult | None:
        """Appraise the host, in one flight for everybody who asks meanwhile."""
        host = self._flows.host
        known = host.known(step)
        if known is not None:
            return known
        flights = host.flights
        with self._lock():
            known = host.known(step)
            if known is not None:
                return known
            if host.flights != flights:
                return host.outcome()
            nonce = host.challenge()
            body = challenge_body(nonce)
            with operation("attest") as told:
                answer = self._post("/v1/attestation", body, JSON_TYPE, timeout_seconds)
                accepted = host.accept(answer, nonce)
                if accepted is None:
                    told.failed(UnavailableError.code)
                return accepted

    def _lock(self) -> threading.Lock:
        """The lock of this process; a forked child's is not held by a thread that did not come along."""
        if self._attesting_in is not epoch():
            self._attesting, self._attesting_in = threading.Lock(), epoch()
        return self._attesting

    def _renew(self) -> None:
        """Appraise the host before its keyset ends; if that fails, a later call will say why."""
        with suppress(CloisterError):
            self._attest(Attest(fresh=True), timeout_seconds=RENEWAL_TIMEOUT_SECONDS)

    def _post(
        self, path: str, body: bytes, content_type: str, timeout_seconds: float | None = None
    ) -> Response | None:
        timeout = min(self._timeout_seconds, timeout_seconds or self._timeout_seconds)
        try:
            return self._transport.post(path, body, content_type=content_type, timeout_seconds=timeout)
        except TransportError:
            return None


def challenge_body(nonce: bytes) -> bytes:
    """The body of `POST /v1/attestation`."""
    return json.dumps({"nonce": jose.b64url_encode(nonce)}).encode()


def policy_from(path: Path) -> AppraisalPolicy:
    """Read an appraisal policy.

    Raises:
        ConfigurationError: The file cannot be read or used.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        raise ConfigurationError(
            f"the appraisal policy {path} cannot be read", hint="set CLOISTER_POLICY"
        ) from None
    if len(raw) > MAX_POLICY_BYTES:
        raise ConfigurationError(f"the appraisal policy {path} is too large")
    try:
        read = AppraisalPolicy.from_json if path.suffix == ".json" else AppraisalPolicy.from_toml
        return read(raw.decode())
    except UnicodeDecodeError:
        raise ConfigurationError(f"the appraisal policy {path} is not text") from None
