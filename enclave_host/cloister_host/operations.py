"""What the host can be asked to do: one table of operations a service."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from cloister.errors import ConfigurationError

__all__ = ["MAX_PAGE", "Name", "Operation", "Page", "Request", "Result"]

MAX_PAGE: Final = 1000

# \Z, not $: a dollar sign also matches before a final line feed.
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}\Z", max_length=63)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z", max_length=512)]

_PATH: Final = re.compile(r"at `\$([^`]*)`")
_OURS: Final = re.compile(r"[a-z_0-9.\[\]]{1,64}")


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of every payload: unknown members are refused."""


class Result(msgspec.Struct, kw_only=True):
    """Base of every result."""


class Page(Request):
    """Asks for one page of a list.

    Attributes:
        after: The `next` of the page before.
        limit: Most items wanted.
    """

    after: Cursor = ""
    limit: Limit = MAX_PAGE


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the host can be asked to do.

    Attributes:
        request_type: The type its payload must have.
        handler: `(caller, request, tx) -> result`; for a staged operation `(caller, request, act)`,
            which opens transactions of its own because work outside the store stands between them.
        effect: Whether it changes anything, so that a repeat must find the first one's result.
        staged: Whether the handler is given an act rather than a transaction.
        streamed: Whether the handler is given `Slices`, and yields the JSON of one result after another.
        receipt: Whether its result gets a receipt: of the `act` alone, or with a digest of the `result` in
            it. Staged operations see to theirs.
    """

    request_type: type[msgspec.Struct]
    handler: Callable[[Any, Any, Any], Any]
    effect: bool
    staged: bool = False
    streamed: bool = False
    receipt: Literal["", "act", "result"] = ""

    def parse(self, payload: bytes | msgspec.Raw) -> Any:
        """Decode a payload.

        Raises:
            ConfigurationError: It is not what the operation takes. The message names the member, and
                never repeats what was sent (msgspec's own messages quote unknown members and values).
        """
        try:
            return msgspec.json.decode(payload, type=self.request_type)
        except msgspec.ValidationError as error:
            found = _PATH.search(str(error))
            where = found[1].lstrip(".") if found else ""
        except (msgspec.DecodeError, RecursionError):
            raise ConfigurationError("the payload is not JSON") from None
        member = f"member {where}" if _OURS.fullmatch(where) else "payload"
        raise ConfigurationError(
            f"the {member} is missing something, malformed, too large or unknown",
            hint="see the API description for what this operation takes",
        )
