"""The client: seals, opens, and calls confidential functions in a host it has appraised."""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloister import jose, telemetry
from cloister._host import RENEWAL_TIMEOUT_SECONDS
from cloister.attestation import AppraisalPolicy
from cloister.envelope.process import epoch
from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister.head_file import head_keeper
from cloister.identity import Identity, identity_from
from cloister.operations import (
    FunctionOperations,
    HostOperations,
    KeyOperations,
    StoredObjectOperations,
    TokenOperations,
    ValueOperations,
)
from cloister.operations.driving import Flow, T
from cloister.operations.flows import Flows
from cloister.operations.functions import ROWS_PER_REQUEST, in_parts, stream
from cloister.protocol.attest import AttestationResult
from cloister.protocol.session import Attest, Authenticate, Response, Send, Wait, Work
from cloister.receipts import TreeHead
from cloister.reply import BatchReply
from cloister.transport import Transport, TransportError

__all__ = ["Client", "policy_from"]

MAX_POLICY_BYTES = 1024 * 1024
JOSE_TYPE = "application/jose"
JSON_TYPE = "application/json"


class Client(
    ValueOperations,
    StoredObjectOperations,
    FunctionOperations,
    TokenOperations,
    KeyOperations,
    HostOperations,
):
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
        from cloister.config import Settings  # noqa: PLC0415 (a client made of parts reads no settings)
        from cloister.transport.stdlib import HttpTransport  # noqa: PLC0415 (nor has it this transport)

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

    def invoke_stream(
        self,
        function: str,
        /,
        rows: Iterable[Mapping[str, Any]],
        *,
        context: Sequence[str] = (),
        rows_per_request: int = ROWS_PER_REQUEST,
        idempotency_key: str | None = None,
        purpose: str | None = None,
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
            purpose: As in `invoke`.

        Raises:
            CloisterError: What ended the stream; the replies before it have been given.
        """
        key = idempotency_key or secrets.token_urlsafe(16)
        for number, part in enumerate(in_parts(rows, rows_per_request)):
            replies, error = self._run(
                stream(
                    self._flows, function, part, context, idempotency_key=f"{key}.{number}", purpose=purpose
                )
            )
            yield from replies
            if error is not None:
                raise error

    # --- the host ---

    def receive(
        self, op: str, payload: Mapping[str, Any], take: Callable[[Mapping[str, Any]], object]
    ) -> None:
        """Run an operation whose results come as a stream, in constant memory.

        Args:
            op: The operation.
            payload: What it takes.
            take: Given each result as it arrives. All of it is whole once this method returns.

        Raises:
            CloisterError: What ended the stream; drop what was taken.
        """
        self._run(self._flows.receive(op, payload, take))

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
                        outcome = self._send(step)
                    case Wait() as step:
                        time.sleep(step.seconds)
                        outcome = None
                    case Work() as step:
                        outcome = step.do()
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
            with telemetry.operation("attest") as told:
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

    def _send(self, step: Send) -> Response | None:
        if step.sink is None:
            return self._post("/v1/sealed", step.body, JOSE_TYPE)
        stream = getattr(self._transport, "stream", None)
        if stream is None:
            raise ConfigurationError("this transport takes no streams", hint="use the default transport")
        try:
            answer: Response = stream(
                "/v1/sealed",
                step.body,
                content_type=JOSE_TYPE,
                timeout_seconds=self._timeout_seconds,
                sink=step.sink,
            )
        except TransportError:
            return None
        return answer

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
