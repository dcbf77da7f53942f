"""The kinds of machine that may hold the deployment's keys (PROTOCOL 5), as its operators set them.

Before anybody has set them, each host takes its own kind alone. From the first change on the list is a
protected row that every host follows; its version tells an older list from a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from cloister.attestation import Format
from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.operations import Name, Operation, Request, Result
from cloister_host.policy.grants import Grants
from cloister_host.store import ExistsError, Table, Tx

__all__ = ["HolderList", "HolderService", "Holders", "is_listed", "read_holders"]

MAX_HOLDERS: Final = 32
MAX_CLAIMS: Final = 32
FIRST: Final = "first"

Claim = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
ClaimName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_.]{1,64}\Z", max_length=64)]


class Holder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of machine.

    Attributes:
        name: For people.
        format: The kind of evidence it produces.
        measurements: What identifies its image, by dotted claim name.
        minimum: The lowest security versions it may have, by dotted claim name.
    """

    name: Name
    format: str
    measurements: Annotated[dict[ClaimName, Claim | bool], msgspec.Meta(min_length=1, max_length=MAX_CLAIMS)]
    minimum: Annotated[dict[ClaimName, int], msgspec.Meta(max_length=MAX_CLAIMS)] = {}

    def entry(self) -> Mapping[str, Any]:
        """As a keyset names it."""
        return {
            "format": self.format,
            "measurements": dict(self.measurements),
            "minimum": dict(self.minimum),
        }


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of the one `holders` row."""

    holders: list[Holder]


HOLDERS: Final = Table("holders", _Record, "list of holders")
ROW: Final = "holders"


class Holders(msgspec.Struct, frozen=True, kw_only=True):
    """The list as it stands; version 0 before anybody has set it.

    Attributes:
        entries: As a keyset names them.
        version: How often the list was changed.
    """

    entries: tuple[Mapping[str, Any], ...]
    version: int


def read_holders(tx: Tx, machine: Mapping[str, Any]) -> Holders:
    """The list, or this machine's own kind alone.

    Args:
        tx: The transaction.
        machine: This machine, as a keyset names it.
    """
    row = tx.get(HOLDERS, SYSTEM_TENANT, ROW)
    if row is None:
        return Holders(entries=(machine,), version=0)
    return Holders(entries=tuple(holder.entry() for holder in row.record.holders), version=row.version)


def is_listed(machine: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether this machine, as a keyset would name it, is one of these."""
    versions = machine["minimum"]
    return any(
        entry["format"] == machine["format"]
        and entry["measurements"].items() <= machine["measurements"].items()
        and all(versions.get(name, -1) >= least for name, least in entry["minimum"].items())
        for entry in entries
    )


class HolderName(Request):
    """Names one kind of machine."""

    name: Name


class NewHolder(Request):
    """A kind of machine that may hold the keys from now on."""

    name: Name
    format: str
    measurements: Annotated[dict[ClaimName, Claim | bool], msgspec.Meta(min_length=1, max_length=MAX_CLAIMS)]
    minimum: Annotated[dict[ClaimName, int], msgspec.Meta(max_length=MAX_CLAIMS)] = msgspec.field(
        default_factory=dict
    )


class HolderList(Result):
    """The kinds of machine, and the version of the list."""

    holders: list[Holder]
    version: int


class HolderService:
    """Sets the list, for operators.

    Args:
        machine: This machine, as a keyset names it: the first entry, before anybody has set another.
    """

    def __init__(self, machine: Mapping[str, Any], grants: Grants, audit: Audit) -> None:
        self._first = Holder(name=FIRST, **machine)
        self._grants = grants
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "holder.add": Operation(NewHolder, self.add, effect=True),
            "holder.remove": Operation(HolderName, self.remove, effect=True),
            "holder.list": Operation(Request, self.list, effect=False),
        }

    def add(self, caller: Caller, request: NewHolder, tx: Tx) -> HolderList:
        """Let one more kind of machine hold the keys. A new epoch begins.

        Raises:
            ExistsError: There is one by this name.
            ConfigurationError: No evidence has this format, or the list is full.
        """
        holders = self._holders(tx, caller, request.name)
        if request.format not in tuple(Format):
            raise ConfigurationError("no evidence has this format", hint=f"one of {', '.join(Format)}")
        if any(holder.name == request.name for holder in holders):
            raise ExistsError("there is a kind of machine by this name", hint="choose another name")
        if len(holders) >= MAX_HOLDERS:
            raise ConfigurationError(f"there are at most {MAX_HOLDERS} kinds of machine")
        added = msgspec.convert(msgspec.to_builtins(request), type=Holder)
        return self._write(tx, caller, "holder.add", request.name, [*holders, added])

    def remove(self, caller: Caller, request: HolderName, tx: Tx) -> HolderList:
        """Let a kind of machine hold no keys any more. Its hosts stop serving, and a new epoch begins.

        Raises:
            ConfigurationError: There is none by this name, or no other.
        """
        holders = self._holders(tx, caller, request.name)
        kept = [holder for holder in holders if holder.name != request.name]
        if len(kept) == len(holders):
            raise ConfigurationError(
                "there is no kind of machine by this name", hint="see `cloister holder list`"
            )
        if not kept:
            raise ConfigurationError(
                "this is the only kind of machine that may hold the keys", hint="add the next one first"
            )
        return self._write(tx, caller, "holder.remove", request.name, kept)

    def list(self, caller: Caller, _request: Request, tx: Tx) -> HolderList:
        """List the kinds of machine."""
        holders = self._holders(tx, caller, "*")
        row = tx.get(HOLDERS, SYSTEM_TENANT, ROW)
        self._audit.record(tx, caller, act="holder.list", resource="holder/*")
        return HolderList(holders=[*holders], version=row.version if row else 0)

    def _holders(self, tx: Tx, caller: Caller, name: str) -> Sequence[Holder]:
        self._grants.require(tx, caller, "holder.manage", f"holder/{name}")
        if caller.tenant != SYSTEM_TENANT:
            raise ConfigurationError("the holders are set in the system tenant")
        row = tx.get(HOLDERS, SYSTEM_TENANT, ROW)
        return row.record.holders if row else [self._first]

    def _write(self, tx: Tx, caller: Caller, act: str, name: str, holders: Sequence[Holder]) -> HolderList:
        row = tx.put(HOLDERS, SYSTEM_TENANT, ROW, _Record(holders=[*holders]))
        self._audit.record(tx, caller, act=act, resource=f"holder/{name}", detail={"version": row.version})
        return HolderList(holders=[*holders], version=row.version)
