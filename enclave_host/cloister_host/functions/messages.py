"""What the operations on functions take and give."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from cloister.function.bundle import MAX_BUNDLE_BYTES
from cloister_host.operations import Name, Page, Request, Result

__all__ = [
    "Alias",
    "BatchInvoked",
    "Debug",
    "Deploy",
    "Deployed",
    "Disable",
    "FunctionInfo",
    "FunctionList",
    "GrantNeeded",
    "Invoke",
    "Invoked",
    "LogEntry",
    "LogList",
    "LogPage",
    "Rollback",
    "RolledBack",
    "RowError",
    "VersionInfo",
]

MAX_ROWS = 50_000
MAX_CONTEXT_CHARS = 1024

# Base64 takes four characters for three bytes.
BundleText = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z", max_length=MAX_BUNDLE_BYTES * 4 // 3 + 4)]
# A JWE of it, whose header and encapsulation take some more.
SealedText = Annotated[str, Meta(max_length=MAX_BUNDLE_BYTES * 4 // 3 + 8192)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", max_length=64)]
Reference = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}@([a-z][a-z0-9-]{0,62}|[0-9a-f]{64})\Z", max_length=128)
]
Identifier = Annotated[str, Meta(max_length=128)]
ContextText = Annotated[str, Meta(max_length=MAX_CONTEXT_CHARS)]
Column = Annotated[list[Any], Meta(max_length=MAX_ROWS)]
ContextColumn = Annotated[list[ContextText | None], Meta(max_length=MAX_ROWS)]


class Deploy(Request):
    """A bundle, and the alias that shall point to it.

    Attributes:
        bundle: The archive, base64url; or
        sealed: The archive, sealed to a public half of the tenant's (context `{"purpose": "bundle"}`).
        signature: A registered deployer's word for its digest.
    """

    bundle: BundleText | UnsetType = UNSET
    sealed: SealedText | UnsetType = UNSET
    signature: Annotated[str, Meta(max_length=8192)] | None = None
    alias: Name | None = None


class GrantNeeded(Result):
    """One grant that the digest needs before it can be invoked; the principal is `function:<digest>`."""

    action: str
    resource: str


class Deployed(Result):
    """What was deployed, and the grants it needs."""

    name: str
    digest: str
    alias: str | None
    needs: list[GrantNeeded]
    notes: list[str]
    signed_by: str


class Alias(Request):
    """Points an alias of a function to one of its deployed digests."""

    function: Name
    alias: Name
    digest: Digest


class Rollback(Request):
    """Points an alias back to where it pointed before its last move."""

    function: Name
    alias: Name


class RolledBack(Result):
    """Where an alias points now, and from where it was moved."""

    function: str
    alias: str
    digest: str
    before: str


class Debug(Request):
    """Lets the text of failures leave for some minutes, or with 0 no longer."""

    function: Name
    minutes: Annotated[int, Meta(ge=0, le=1440)]


class LogPage(Page, kw_only=True):
    """Asks for one page of what a function logged."""

    function: Name


class LogEntry(Result):
    """What one invocation logged; `sealed` opens under the context `{"function", "entry"}`."""

    entry: str
    function: str
    digest: str
    principal: str
    correlation_id: str
    at: int
    outcome: str
    sealed: str


class LogList(Result):
    """One page of entries, oldest first; `next` continues it, and is empty at the end."""

    entries: list[LogEntry]
    next: str


class Disable(Request):
    """Stops a function at once, or lets it run again."""

    function: Name
    disabled: bool = True


class VersionInfo(Result):
    """One deployed bundle."""

    digest: str
    deployed_by: str
    deployed_at: int
    signed_by: str
    needs: list[GrantNeeded]


class FunctionInfo(Result):
    """One function: where its aliases point, and the bundles deployed under its name."""

    name: str
    disabled: bool
    debug_until: int
    aliases: dict[str, str]
    versions: list[VersionInfo]


class FunctionList(Result):
    """One page of functions; `next` continues it, and is empty at the end."""

    functions: list[FunctionInfo]
    next: str


class Invoke(Request):
    """One call: `inputs` by parameter name, or for a batch function `columns` of equal length."""

    function: Reference
    inputs: Annotated[dict[Identifier, Any], Meta(max_length=64)] | UnsetType = UNSET
    columns: Annotated[dict[Identifier, Column], Meta(max_length=64)] | UnsetType = UNSET
    context: Annotated[dict[Identifier, ContextText | ContextColumn], Meta(max_length=64)] = field(
        default_factory=dict
    )


class Invoked(Result):
    """What was let out: `output` names the class of `value`."""

    value: Any
    output: str
    receipt: dict[str, Any]
    delivery_id: str | None = None
    padding: str = ""


class RowError(Result):
    """Why a row has no value."""

    code: str


class BatchInvoked(Result):
    """One value a row, in order; null where the row was null or has an error (by its index, as text).

    Of a function that delivers, `delivery_ids` has a delivery for each row with a value.
    """

    values: list[Any]
    output: str
    errors: dict[str, RowError]
    receipt: dict[str, Any]
    delivery_ids: list[str | None] | None = None
    padding: str = ""
