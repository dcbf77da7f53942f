"""What is in a sealed request once it was opened: operation, tenant, credential and payload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from cloister.errors import CloisterError, ConfigurationError
from cloister.protocol import OpenedRequest, body_digest
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation

__all__ = ["Body", "Opened", "Proof", "Task", "read_body"]

MAX_PURPOSE_CHARS: Final = 128


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """The members of a request; the credential goes no further than `Dispatcher`."""

    op: str
    tenant: str
    credential: dict[str, str | list[str]]
    payload: msgspec.Raw
    idempotency_key: str = ""
    purpose: Annotated[str, msgspec.Meta(max_length=MAX_PURPOSE_CHARS)] = ""
    log_size: Annotated[int, msgspec.Meta(ge=0, lt=2**62)] = 0

    @property
    def digest(self) -> bytes:
        """What an idempotency key stands for."""
        return hashlib.sha256(self.op.encode() + b"\x00" + bytes(self.payload)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A request that was opened, and is not answered yet.

    Attributes:
        request: What its reply is sealed to.
        body: Its members, or why they cannot be read.
        line: Whose turn it waits for (see `lines`).
        correlation_id: Ties its audit entries and logs together.
        opened_at: When, on the performance counter.
    """

    request: OpenedRequest
    body: Body | CloisterError
    line: str
    correlation_id: str
    opened_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The request as a client certificate's key signs it."""

    kid: str
    jti: str
    body: Body

    def digest(self) -> bytes:
        """SHA-256 of what it asks for."""
        body = self.body
        return body_digest(
            bytes(body.payload),
            op=body.op,
            tenant=body.tenant,
            idempotency_key=body.idempotency_key,
            purpose=body.purpose,
        )


@dataclass(slots=True, kw_only=True)
class Task:
    """What a request asks for, decoded.

    Attributes:
        caller: Who asks, once that was proven.
        length: Characters that a failure is padded to.
    """

    body: Body
    operation: Operation
    payload: Any
    caller: Caller | None = None
    length: int = 0


def read_body(plaintext: bytes) -> Body:
    """Read the members of a request.

    Raises:
        ConfigurationError: They are not a request's.
    """
    try:
        return msgspec.json.decode(plaintext, type=Body)
    except (msgspec.MsgspecError, RecursionError):
        # msgspec's own message may quote a member.
        raise ConfigurationError(
            "the request's body cannot be read",
            hint="its members are op, tenant, credential, payload and idempotency_key",
        ) from None
