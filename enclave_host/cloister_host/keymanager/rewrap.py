"""Moves what hangs on old key versions to the current one, without showing it to anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from cloister.envelope import ContentKey, ContentSealer, Dek, Sealed, recover_cek
from cloister.envelope.offline import draw_sealer
from cloister.envelope.raw import Raw
from cloister.errors import OpenError
from cloister.jose import wrap_key
from cloister.secret import Secret
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.application_messages import Rewrap, RewrapItem, Rewrapped
from cloister_host.keymanager.applications import RawCipher, decode
from cloister_host.keymanager.keyring import HeldKey, KeyRing
from cloister_host.keymanager.manager import KeyManager
from cloister_host.keymanager.records import Purpose
from cloister_host.keymanager.usage import Usage
from cloister_host.operations import Operation
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx

__all__ = ["Rewrapper"]

_SEALING: Final[tuple[Purpose, ...]] = ("seal", "seal-public", "seal-public-fips")


class Rewrapper:
    """Answers `key.rewrap`.

    A value is sealed anew under a fresh data key. One that is bound to a context which was not given keeps
    its data key, wrapped anew: enough to retire a version, not enough where the version is compromised.
    """

    def __init__(
        self, *, ring: KeyRing, manager: KeyManager, usage: Usage, grants: Grants, audit: Audit
    ) -> None:
        self._ring = ring
        self._manager = manager
        self._usage = usage
        self._grants = grants
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {"key.rewrap": Operation(Rewrap, self.rewrap, effect=False)}

    def rewrap(self, caller: Caller, request: Rewrap, tx: Tx) -> Rewrapped:
        """Move values of a key to its current version (right `rewrap`; one audit entry a batch).

        Values of a compromised version can still be moved; they get a fresh data key, or an error.

        Raises:
            ConfigurationError: There is no such key, or none of its versions may protect.
            LimitError: The current version, or a data key that would be kept, has protected all it may.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "rewrap", resource)
        sources = _Sources(self._ring, tx, caller.tenant, request.key)
        target = self._ring.current(tx, caller.tenant, request.key)
        target_of = partial(self._fresh, tx, caller.tenant, target, request.items)
        batch = _Move(sources, target, target_of)
        values: list[str | None] = []
        errors: dict[str, str] = {}
        for place, item in enumerate(request.items):
            try:
                values.append(str(batch.move(item)))
            except OpenError as error:
                values.append(None)
                errors[str(place)] = error.code
        for kid, count in sorted(batch.moved.items()):
            self._usage.note_rewrapped(tx, caller.tenant, kid, count)
        for encrypted_key, count in sorted(batch.kept.items()):
            self._usage.lease(tx, caller.tenant, target, wanted=count, least=count)
            self._usage.keep_dek(tx, caller.tenant, target.kid, encrypted_key, count)
        moved, kept = batch.moved.total(), batch.kept.total()
        detail: dict[str, str | int] = {
            "kid": target.kid,
            "items": len(values),
            "moved": moved,
            "failed": len(errors),
        }
        self._audit.record(tx, caller, act="key.rewrap", resource=resource, detail=detail)
        return Rewrapped(kid=target.kid, values=values, errors=errors, moved=moved, kept=kept)

    def _fresh(
        self, tx: Tx, tenant: str, target: HeldKey, items: Sequence[RewrapItem]
    ) -> Dek | ContentSealer:
        """What seals the batch anew; leased for all of it, once."""
        if target.purpose == "seal":
            size = sum(len(item.value) for item in items)
            return self._manager.lease_dek(tx, tenant, target, messages=len(items), size_bytes=size)
        self._usage.spend(tx, tenant, target, len(items))
        return draw_sealer(target.key.public(), kid=target.kid)


class _Sources:
    """The versions that values come from, each read once, and their data keys, each unwrapped once."""

    def __init__(self, ring: KeyRing, tx: Tx, tenant: str, key: str) -> None:
        self._ring = ring
        self._tx = tx
        self._tenant = tenant
        self._key = key
        self._found: dict[str, tuple[HeldKey, bool] | None] = {}
        self._opened: dict[tuple[str, bytes], tuple[ContentKey, Secret]] = {}

    def find(self, kid: str) -> tuple[HeldKey, bool]:
        """A version, and whether its data keys may be kept; raises `OpenError`."""
        if kid not in self._found:
            self._found[kid] = self._read(kid)
        found = self._found[kid]
        if found is None:
            raise OpenError
        return found

    def content(self, sealed: Sealed, source: HeldKey) -> tuple[ContentKey, Secret]:
        """The data key of a value; raises `OpenError`."""
        entry = (source.kid, sealed.encrypted_key)
        if entry not in self._opened:
            cek = recover_cek(sealed, source.key)
            self._opened[entry] = (ContentKey(cek.reveal()), cek)
        return self._opened[entry]

    def _read(self, kid: str) -> tuple[HeldKey, bool] | None:
        if kid.rpartition(".")[0] != self._key:
            return None
        try:
            held = self._ring.version(self._tx, self._tenant, kid, *_SEALING, rescue=True)
        except OpenError:
            return None
        _, row = self._ring.version_row(self._tx, self._tenant, kid)
        # Whoever has a compromised version's material has its data keys too; they are never kept.
        keeps = held.purpose == "seal" and row.record.life.state_at(self._ring.now) != "compromised"
        return held, keeps


class _Move:
    """Moves one batch, and counts what it moved by source version and by data key that was kept."""

    def __init__(self, sources: _Sources, target: HeldKey, fresh: Callable[[], Dek | ContentSealer]) -> None:
        self._sources = sources
        self._target = target
        self._draw = fresh
        self._drawn: Dek | ContentSealer | None = None
        self._cipher = RawCipher()
        self.moved: Counter[str] = Counter()
        self.kept: Counter[bytes] = Counter()

    def move(self, item: RewrapItem) -> str:
        """The value under the current version; raises `OpenError`."""
        if item.value.startswith("cle1."):
            return self._move_raw(Raw.parse(item.value, "cle1"), item)
        sealed = Sealed(item.value)
        source, keeps = self._sources.find(sealed.kid)
        if source.kid == self._target.kid:
            return sealed
        content, cek = self._sources.content(sealed, source)
        if keeps and sealed.has_context and item.context is None:
            encrypted_key = wrap_key(cek, self._target.key)
            same = ContentSealer(
                cek.reveal(), alg="A256KW", kid=self._target.kid, encrypted_key=encrypted_key
            )
            moved = content.reseal(sealed, same)
            self.kept[encrypted_key] += 1
        else:
            to = self._fresh()
            if isinstance(to, Dek):
                moved = to.reseal(sealed, content, item.context)
            else:
                moved = content.reseal(sealed, to, item.context)
        self.moved[source.kid] += 1
        return moved

    def _move_raw(self, raw: Raw, item: RewrapItem) -> str:
        source, _ = self._sources.find(raw.kid)
        if source.kid == self._target.kid:
            return item.value
        aad = decode(item.aad)
        plain = self._cipher.decrypt(raw, source, aad)
        dek = self._fresh()
        if not isinstance(
            dek, Dek
        ):  # a ciphertext is under a symmetric key, and so is its key's every version
            raise OpenError
        self.moved[source.kid] += 1
        return self._cipher.encrypt(dek, plain, aad)

    def _fresh(self) -> Dek | ContentSealer:
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn
