"""A tenant's part of the log as lines of text that verify by themselves (byte for byte in SPEC.md).

The first line names the log and carries what is signed; then one line an entry, in the order of the log,
each with the subtrees between it and the one before; the last line has the subtrees behind it. Folded
together they are the signed tree, and the chain over the entries' leaves shows that none of the tenant's
is left out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.errors import CloisterError, EvidenceError, LogError
from cloister.jose.strict_json import load_object
from cloister.protocol.attest import AttestationDocument
from cloister.protocol.keyset import Keyset, verify_keyset
from cloister.receipts.head import TreeHead, log_key_of, verify_head
from cloister.receipts.keeper import read_path
from cloister.receipts.merkle import HASH_BYTES, Fold, cover, leaf_hash

__all__ = [
    "EMPTY_CHAIN",
    "ExportVerifier",
    "Extent",
    "LogEntry",
    "VerifiedExport",
    "end_line",
    "entry_line",
    "extend_chain",
    "header_line",
    "sign_extent",
]

EXTENT_TYP: Final = "cloister-log-extent+jwt"
FORMAT: Final = "cloister-audit-export"
VERSION: Final = 1
MAX_LINE_BYTES: Final = 2 * 1024 * 1024
MAX_GAP_NODES: Final = 256
SALT_BYTES: Final = 32
EMPTY_CHAIN: Final = bytes(HASH_BYTES)

_ENTRY: Final = re.compile(
    rb'\{"index":(0|[1-9][0-9]{0,18}),"salt":"([A-Za-z0-9_-]{43})","before":"([A-Za-z0-9_-]{0,11000})",'
    rb'"entry":(\{.*\})\}'
)
_END: Final = re.compile(rb'\{"end":(0|[1-9][0-9]{0,18}),"before":"([A-Za-z0-9_-]{0,11000})"\}')


def extend_chain(chain: bytes, index: int, leaf: bytes) -> bytes:
    """Add a leaf to a tenant's chain: SHA-256(0x02 || chain || index in 8 bytes || leaf)."""
    return hashlib.sha256(b"\x02" + chain + index.to_bytes(8, "big") + leaf).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What of the log is one tenant's, as of a head: signed by the log key.

    Attributes:
        size: The size of the tree it speaks of.
        entries: How many of its leaves are the tenant's.
        chain: The chain over them.
    """

    deployment: str
    tenant: str
    size: int
    entries: int
    chain: bytes


def sign_extent(extent: Extent, *, key: jose.Key) -> str:
    """Sign an extent with the log key."""
    payload: dict[str, Any] = {
        "v": VERSION,
        "deployment": extent.deployment,
        "tenant": extent.tenant,
        "size": extent.size,
        "entries": extent.entries,
        "chain": jose.b64url_encode(extent.chain),
    }
    return jose.sign_compact(rfc8785.dumps(payload), key, typ=EXTENT_TYP)


def header_line(*, head: TreeHead, extent: str, evidence: AttestationDocument) -> str:
    """The first line of an export, without its line feed."""
    members = {
        "format": FORMAT,
        "v": VERSION,
        "head": head.token,
        "extent": extent,
        "evidence": evidence.to_json(),
    }
    return json.dumps(members, separators=(",", ":"))


def entry_line(*, index: int, salt: bytes, before: Sequence[bytes], entry: bytes) -> str:
    """The line of one entry; the entry's bytes stand in it as they were hashed."""
    skipped, salted = jose.b64url_encode(b"".join(before)), jose.b64url_encode(salt)
    return f'{{"index":{index},"salt":"{salted}","before":"{skipped}","entry":{entry.decode()}}}'


def end_line(*, size: int, before: Sequence[bytes]) -> str:
    """The last line."""
    return f'{{"end":{size},"before":"{jose.b64url_encode(b"".join(before))}"}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One entry of an export, believed only once the export was verified to its end.

    Attributes:
        entry: Its canonical JSON, as it was hashed.
    """

    index: int
    salt: bytes = field(repr=False)
    entry: bytes = field(repr=False)

    @property
    def members(self) -> Mapping[str, Any]:
        """What it says.

        Raises:
            LogError: It is not an object.
        """
        try:
            return load_object(self.entry)
        except ValueError:
            raise LogError("an entry of the export is not JSON") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedExport:
    """An export that was verified to its end: these are all of the tenant's entries, as of the head.

    Attributes:
        evidence: Vouches for the keyset; to be appraised under a policy.
        not_checked: What was NOT verified.
    """

    tenant: str
    head: TreeHead
    keyset: Keyset
    evidence: AttestationDocument
    entries: int
    not_checked: tuple[str, ...]


class ExportVerifier:
    """Verifies an export line by line, in constant memory; nothing is proven before `finish`.

    Args:
        header: The first line.
        deployment: The deployment that is meant; None accepts any and says so.

    Raises:
        LogError: The header is malformed, or not signed by the deployment's log.
    """

    def __init__(self, header: bytes, *, deployment: str | None) -> None:
        members = _header(header)
        try:
            self._evidence = AttestationDocument.from_json(members.get("evidence"))
            self._keyset = verify_keyset(self._evidence.keyset, deployment=deployment)
        except EvidenceError as error:
            raise LogError(
                f"the export's keyset cannot be trusted: {error.args[0]}", hint=error.hint
            ) from None
        self._pinned = deployment is not None
        self.head = verify_head(_text(members, "head"), keyset=self._keyset)
        self.extent = _verify_extent(_text(members, "extent"), keyset=self._keyset)
        if self.extent.size != self.head.size:
            raise LogError("the export's head and extent are of different trees")
        self._tree = Fold()
        self._entries, self._chain, self._ended = 0, EMPTY_CHAIN, False

    def feed(self, line: bytes) -> LogEntry | None:
        """Take the next line; gives its entry, or None for the last line.

        Raises:
            LogError: It is malformed, or cannot stand here.
        """
        if len(line) > MAX_LINE_BYTES or self._ended:
            raise LogError("the export has a line that is too long, or goes on after its end")
        if (found := _ENTRY.fullmatch(line)) is None:
            self._end(line)
            return None
        index = int(found[1])
        self._skip(index, found[3])
        salt, entry = jose.b64url_decode(_canonical(found[2])), found[4]
        leaf = leaf_hash(salt, entry)
        self._tree.add(0, leaf)
        self._entries, self._chain = self._entries + 1, extend_chain(self._chain, index, leaf)
        return LogEntry(index=index, salt=salt, entry=entry)

    def finish(self) -> VerifiedExport:
        """Check that the lines are the signed tree, and all of the tenant's part of it.

        Raises:
            LogError: Entries were changed, added, left out or put in another order, or the end is missing.
        """
        if not self._ended or not hmac.compare_digest(self._tree.root(), self.head.root):
            raise LogError(
                "the export is not the log that was signed",
                hint="an entry was changed, moved, added or left out",
            )
        if self._entries != self.extent.entries or not hmac.compare_digest(self._chain, self.extent.chain):
            raise LogError("the export does not have every entry of its tenant")
        unpinned = () if self._pinned else ("deployment: none was named, any is accepted",)
        return VerifiedExport(
            tenant=self.extent.tenant,
            head=self.head,
            keyset=self._keyset,
            evidence=self._evidence,
            entries=self._entries,
            not_checked=unpinned,
        )

    def _end(self, line: bytes) -> None:
        found = _END.fullmatch(line)
        if found is None or int(found[1]) != self.head.size:
            raise LogError("the export has a malformed line")
        self._skip(self.head.size, found[2])
        self._ended = True

    def _skip(self, index: int, before: bytes) -> None:
        """Take the subtrees between what was taken so far and an index."""
        if not self._tree.size <= index <= self.head.size:
            raise LogError("the export's entries are not in the order of the log")
        nodes = cover(self._tree.size, index)
        hashes = read_path(before.decode("ascii"), most=MAX_GAP_NODES) if before else []
        if len(nodes) != len(hashes):
            raise LogError("the export's subtrees do not fit between its entries")
        for (level, _), found in zip(nodes, hashes, strict=True):
            self._tree.add(level, found)


def _header(line: bytes) -> Mapping[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise LogError("the export's first line is too long")
    try:
        members = load_object(line)
    except ValueError:
        members = {}
    if members.get("format") != FORMAT:
        raise LogError("this is not an export of an audit log", hint="`cloister audit export` writes one")
    if members.get("v") != VERSION:
        raise LogError("the export has another version", hint="update the client")
    return members


def _verify_extent(token: str, *, keyset: Keyset) -> Extent:
    key = log_key_of(keyset)
    try:
        if key is None:
            raise EvidenceError("there is no log key")
        payload = jose.verify_claims(token, {**key.jwk, "kid": key.kid}, typ=EXTENT_TYP)
        extent = Extent(
            deployment=_text(payload, "deployment"),
            tenant=_text(payload, "tenant"),
            size=_count(payload, "size"),
            entries=_count(payload, "entries"),
            chain=jose.b64url_decode(_text(payload, "chain")),
        )
    except (CloisterError, ValueError):
        raise LogError("the export's extent is malformed or not signed by the log") from None
    if payload.get("v") != VERSION or extent.deployment != keyset.deployment:
        raise LogError("the export's extent is of another version or deployment")
    return extent


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise LogError(f"the member {name} is missing or malformed")
    return value


def _count(members: Mapping[str, Any], name: str) -> int:
    value = members.get(name)
    if type(value) is not int or value < 0:
        raise LogError(f"the member {name} is missing or malformed")
    return value


def _canonical(salt: bytes) -> str:
    text = salt.decode("ascii")
    if text[-1] not in "AEIMQUYcgkosw048":
        raise LogError("the export has a malformed line")
    return text
