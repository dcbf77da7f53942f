"""What the operations of key officers take and give; times are epoch seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cloister_host.keymanager.messages import KeyInfo, KeyName, Kid, Messages, Period, Time
from cloister_host.operations import Request, Result

__all__ = ["KeyDestroy", "KeyDetail", "KeySchedule", "KeyState", "Named", "VersionUsage"]

Target = Literal["active", "suspended", "deactivated", "compromised"]
Clearable = Literal["active_seconds", "recipient_seconds", "rotate_seconds", "max_messages"]
Number = Annotated[int, Meta(ge=1, le=10**9)]
Reason = Annotated[str, Meta(pattern=r"^[A-Za-z0-9 .,:_/-]*\Z", max_length=200)]


class Named(Request):
    """Names a version."""

    kid: Kid


class KeyState(Named, kw_only=True):
    """Moves a version to a state.

    Attributes:
        accept_processing: Let a suspended or compromised version still open what it protects.
        reason: For the audit log.
    """

    state: Target
    accept_processing: bool = False
    reason: Reason | None = None


class KeySchedule(KeyName, kw_only=True):
    """Changes a key's rules, or a version's times; what is not given stays.

    Attributes:
        kid: The version whose times are meant; the newest, if none is given.
        min_seal: The lowest version that may protect.
        min_open: The lowest version that may process.
        destroy_wait_seconds: Only longer than before.
        clear: Rules that no longer hold.
    """

    kid: Kid | None = None
    activate_at: Time | None = None
    deactivate_at: Time | None = None
    active_seconds: Period | None = None
    recipient_seconds: Period | None = None
    rotate_seconds: Period | None = None
    max_messages: Messages | None = None
    min_seal: Number | None = None
    min_open: Number | None = None
    destroy_wait_seconds: Period | None = None
    clear: Annotated[tuple[Clearable, ...], Meta(max_length=4)] = ()


class KeyDestroy(Named, kw_only=True):
    """Names a version to be destroyed.

    Attributes:
        wait_seconds: How long there is a way back; at least, and if not given, what the key says.
    """

    wait_seconds: Period | None = None


class VersionUsage(Result):
    """What hangs on a version, as far as the host can know.

    Attributes:
        data_keys: Data keys that were issued or wrapped under it.
        messages_at_most: What they, and MACs and signatures of a limited key, may have protected.
        values_rewrapped: Values that were moved from it.
        last_opened: The last hour in which something under it was opened.
    """

    kid: str
    state: str
    data_keys: int
    messages_at_most: int
    values_rewrapped: int
    last_opened: int | None


class KeyDetail(Result):
    """A key, what hangs on its versions, and what the host cannot know about that."""

    key: KeyInfo
    usage: list[VersionUsage]
    not_known: list[str]
