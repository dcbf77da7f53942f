"""Functions as the store knows them: names, aliases, and deployed bundles by digest."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec
from msgspec.structs import replace

from cloister.errors import ConfigurationError
from cloister.function.bundle import Bundle, read_bundle
from cloister.function.manifest import Manifest
from cloister_host.functions.messages import FunctionInfo, GrantNeeded, VersionInfo
from cloister_host.identity.caller import Caller
from cloister_host.store import Row, Table, TamperedError, Tx

__all__ = ["FUNCTIONS", "VERSIONS", "Registry", "Resolved"]


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `functions` row; its id is the name.

    Attributes:
        history: Where each alias pointed before, the latest last.
        debug_until: Until when (epoch seconds) the text of failures may leave.
    """

    aliases: dict[str, str]
    disabled: bool
    history: dict[str, list[str]] = {}
    debug_until: int = 0


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `function_versions` row; its id is `name@digest`, its secret part the archive."""

    manifest: str
    deployed_by: str
    deployed_at: int
    signed_by: str = ""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference stands for at this moment."""

    name: str
    digest: str
    manifest: Manifest
    debug_until: int


FUNCTIONS: Final = Table("functions", FunctionRecord, "function")
VERSIONS: Final = Table("function_versions", VersionRecord, "bundle")
MAX_ALIASES: Final = 32
MAX_HISTORY: Final = 16


@lru_cache(maxsize=1024)
def _manifest(canonical: str) -> Manifest:
    return Manifest.parse(canonical.encode())


class Registry:
    """Reads and writes the rows; who may is decided by the service above it."""

    def add(self, tx: Tx, caller: Caller, bundle: Bundle, *, signed_by: str, at: int) -> None:
        """Remember a bundle. The same bytes again change nothing."""
        name = bundle.manifest.name
        if tx.get(FUNCTIONS, caller.tenant, name) is None:
            tx.insert(FUNCTIONS, caller.tenant, name, FunctionRecord(aliases={}, disabled=False))
        version_id = f"{name}@{bundle.digest}"
        if tx.get(VERSIONS, caller.tenant, version_id) is None:
            record = VersionRecord(
                manifest=bundle.manifest.canonical().decode(),
                deployed_by=caller.principal,
                deployed_at=at,
                signed_by=signed_by,
            )
            tx.insert(VERSIONS, caller.tenant, version_id, record, secret=bundle.data)

    def point(self, tx: Tx, tenant: str, name: str, alias: str, digest: str) -> str:
        """Point an alias to a deployed digest; returns where it pointed before, or nothing.

        Raises:
            ConfigurationError: There is no such function or digest, or there are too many aliases.
        """
        row = self._function(tx, tenant, name)
        self._version(tx, tenant, name, digest)
        aliases = {**row.record.aliases, alias: digest}
        if len(aliases) > MAX_ALIASES:
            raise ConfigurationError("the function has too many aliases", hint=f"at most {MAX_ALIASES}")
        before = row.record.aliases.get(alias, "")
        history = row.record.history
        if before not in {"", digest}:
            history = {**history, alias: [*history.get(alias, ()), before][-MAX_HISTORY:]}
        tx.put(FUNCTIONS, tenant, name, replace(row.record, aliases=aliases, history=history))
        return before

    def roll_back(self, tx: Tx, tenant: str, name: str, alias: str) -> tuple[str, str]:
        """Point an alias to where it pointed before; returns where it points, and where it did.

        Raises:
            ConfigurationError: There is no such function or alias, or it never moved.
        """
        row = self._function(tx, tenant, name)
        history = row.record.history.get(alias, [])
        if not history:
            raise ConfigurationError(
                "the alias has nowhere to go back to", hint="see `cloister function list`"
            )
        digest, before = history[-1], row.record.aliases.get(alias, "")
        record = replace(
            row.record,
            aliases={**row.record.aliases, alias: digest},
            history={**row.record.history, alias: history[:-1]},
        )
        tx.put(FUNCTIONS, tenant, name, record)
        return digest, before

    def set_debug(self, tx: Tx, tenant: str, name: str, *, until: int) -> None:
        """Let the text of failures leave until then."""
        row = self._function(tx, tenant, name)
        tx.put(FUNCTIONS, tenant, name, replace(row.record, debug_until=until))

    def set_disabled(self, tx: Tx, tenant: str, name: str, *, disabled: bool) -> None:
        """Stop a function, or let it run again."""
        row = self._function(tx, tenant, name)
        tx.put(FUNCTIONS, tenant, name, replace(row.record, disabled=disabled))

    def resolve(self, tx: Tx, tenant: str, reference: str) -> Resolved:
        """Find what `name@alias` or `name@digest` stands for.

        Raises:
            ConfigurationError: Nothing, or the function is disabled.
        """
        name, _, version = reference.partition("@")
        record = self._function(tx, tenant, name).record
        if record.disabled:
            raise ConfigurationError("the function is disabled", hint="function.disable with disabled=false")
        digest = record.aliases.get(version, version)
        row = self._version(tx, tenant, name, digest)
        return Resolved(
            name=name,
            digest=digest,
            manifest=_manifest(row.record.manifest),
            debug_until=record.debug_until,
        )

    def digest(self, tx: Tx, tenant: str, reference: str) -> str:
        """The digest that would run, for grants on condition of it; nothing if none would."""
        try:
            return self.resolve(tx, tenant, reference).digest
        except ConfigurationError:
            return ""

    def bundle(self, tx: Tx, tenant: str, name: str, digest: str) -> Bundle:
        """Read a deployed bundle back.

        Raises:
            TamperedError: It is not the one that was deployed.
        """
        row = self._version(tx, tenant, name, digest)
        bundle = read_bundle(tx.reveal(VERSIONS, row).reveal())
        if bundle.digest != digest:
            raise TamperedError(VERSIONS.name)
        return bundle

    def list(self, tx: Tx, tenant: str, *, after: str, limit: int) -> list[FunctionInfo]:
        """One page of functions with everything deployed under their names."""
        return [
            FunctionInfo(
                name=row.id,
                disabled=row.record.disabled,
                debug_until=row.record.debug_until,
                aliases=row.record.aliases,
                versions=[_info(version) for version in tx.scan(VERSIONS, tenant, prefix=f"{row.id}@")],
            )
            for row in tx.scan(FUNCTIONS, tenant, after=after, limit=limit)
        ]

    def _function(self, tx: Tx, tenant: str, name: str) -> Row[FunctionRecord]:
        row = tx.get(FUNCTIONS, tenant, name)
        if row is None:
            raise ConfigurationError(
                "there is no such function", hint="deploy it: `cloister function deploy DIR`"
            )
        return row

    def _version(self, tx: Tx, tenant: str, name: str, digest: str) -> Row[VersionRecord]:
        row = tx.get(VERSIONS, tenant, f"{name}@{digest}")
        if row is None:
            raise ConfigurationError(
                "the function has no such alias or digest", hint="see `cloister function list`"
            )
        return row


def _info(row: Row[VersionRecord]) -> VersionInfo:
    return VersionInfo(
        digest=row.id.partition("@")[2],
        deployed_by=row.record.deployed_by,
        deployed_at=row.record.deployed_at,
        signed_by=row.record.signed_by,
        needs=[
            GrantNeeded(action=n.action, resource=n.resource) for n in _manifest(row.record.manifest).needs
        ],
    )
