"""An export verifies by itself, in every format, and whatever is done to it shows."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister import jose
from cloister.errors import CloisterError, LogError
from cloister.receipts.entry import prove_document, verify_entry_proof
from cloister.receipts.export import EXTENT_TYP, ExportVerifier
from cloister.receipts.siem import decode_line, encode_line, format_of
from support.log_double import MemoryLog, salt_of

FORMATS = ("jsonl", "ocsf", "cef")
NASTY = 'a|b\\c=d cs6=x\ne"\r\u2028é\x7f'


def entry(number: int, **changes: object) -> bytes:
    members = {
        "id": f"{number:032x}",
        "at": 1_800_000_000_000 + number,
        "tenant": "acme",
        "principal": "admin",
        "kind": "person",
        "on_behalf_of": "",
        "correlation_id": "c",
        "act": "key.create",
        "resource": f"key/k{number}",
        "outcome": "done",
        "detail": {"kid": f"k{number}.1", "n": number},
    }
    return rfc8785.dumps(members | changes)


def leaf(number: int) -> bytes:
    return hashlib.sha256(b"other" + bytes([number % 256])).digest()


MINE = {
    1: entry(1),
    2: entry(2, resource=NASTY, principal=NASTY),
    9: entry(9, outcome="refused"),
    30: entry(30),
}
LOG = MemoryLog()
LOG.grow(*map(leaf, range(37)))
LINES = LOG.export(MINE)
DEPLOYMENT = LOG.keyset.deployment


def verify(lines, *, deployment=DEPLOYMENT):
    verifier = ExportVerifier(lines[0].encode(), deployment=deployment)
    entries = [verifier.feed(line.encode()) for line in lines[1:]]
    return verifier.finish(), [found for found in entries if found is not None]


def test_an_export_gives_the_entries_and_the_head_they_are_in():
    found, entries = verify(LINES)
    assert (found.tenant, found.entries, found.head.size) == ("acme", 4, 37)
    assert {item.index: item.entry for item in entries} == MINE
    assert entries[2].members["outcome"] == "refused"
    assert found.not_checked == ()
    assert verify(LINES, deployment=None)[0].not_checked == ("deployment: none was named, any is accepted",)


@pytest.mark.parametrize("size", [0, 1, 2, 33])
def test_exports_of_every_shape_verify(size):
    for mine in ({}, {0: entry(0)}, {size - 1: entry(1)}, {n: entry(n) for n in range(size)}):
        log = MemoryLog()
        log.grow(*map(leaf, range(size)))
        lines = log.export({n: found for n, found in mine.items() if 0 <= n < size})
        verify(lines, deployment=log.keyset.deployment)


# --- what may be done to it ---


def changed(place, old, new):
    lines = list(LINES)
    assert old in lines[place]
    lines[place] = lines[place].replace(old, new, 1)
    return lines


ATTACKS = {
    "an entry edited": changed(3, '"refused"', '"done"'),
    "an entry moved": changed(1, '"index":1', '"index":0'),
    "a salt changed": changed(1, jose.b64url_encode(salt_of(1)), jose.b64url_encode(salt_of(2))),
    "an entry left out": [*LINES[:2], *LINES[3:]],
    "the last entry left out": [*LINES[:4], LINES[-1]],
    "two entries swapped": [LINES[0], LINES[2], LINES[1], *LINES[3:]],
    "an entry twice": [*LINES[:2], *LINES[1:]],
    "the end left out": LINES[:-1],
    "everything left out": LINES[:1],
    "lines behind the end": [*LINES, LINES[-1]],
    "an end of another size": changed(-1, '"end":37', '"end":36'),
    "a subtree changed": [re.sub(r'"before":"[^"]{43}', '"before":"' + "A" * 43, line) for line in LINES],
    "white space": changed(1, '"index":1,', '"index":1, '),
    "an entry that is no object": changed(1, LINES[1].partition('"entry":')[2], "7}"),
}


@pytest.mark.parametrize("lines", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_export_with_one_thing_changed_is_refused(lines):
    with pytest.raises(LogError):
        verify(lines)


def test_an_entry_hidden_among_the_subtrees_of_others_is_found():
    """Every leaf is there and the root is right, but one of the tenant's own is passed off as another's."""
    log = MemoryLog()
    log.grow(*map(leaf, range(37)))
    full = log.export(MINE)
    log.time -= 1
    hidden = log.export({index: found for index, found in MINE.items() if index != 9})
    with pytest.raises(LogError, match="every entry"):
        verify([full[0], *hidden[1:]], deployment=log.keyset.deployment)


def test_an_export_of_another_deployment_is_refused():
    with pytest.raises(LogError, match="another deployment"):
        verify(LINES, deployment=MemoryLog().keyset.deployment)


def header(**changes):
    return [json.dumps(json.loads(LINES[0]) | changes, separators=(",", ":")), *LINES[1:]]


def extent(key=None, **changes):
    claims = json.loads(jose.b64url_decode(json.loads(LINES[0])["extent"].split(".")[1])) | changes
    return jose.sign_compact(json.dumps(claims).encode(), key or LOG.key, typ=EXTENT_TYP)


@pytest.mark.parametrize(
    "lines",
    [
        header(format="another"),
        header(v=2),
        header(evidence=None),
        header(head=None),
        header(head=MemoryLog().head().token),
        header(extent="a.b.c"),
        header(extent=extent(key=jose.generate_key("EdDSA", kid="log-1"))),
        header(extent=extent(v=2)),
        header(extent=extent(size=36)),
        header(extent=extent(entries=3)),
        header(extent=extent(entries=True)),
        header(extent=extent(chain="AA")),
        header(extent=extent(chain="=")),
        header(extent=extent(tenant=None)),
        header(extent=extent(deployment="other")),
    ],
)
def test_a_header_with_one_member_changed_is_refused(lines):
    with pytest.raises(LogError):
        verify(lines)


# --- formats ---


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_carries_the_whole_export(format_):
    events = [encode_line(line, format_) for line in LINES]
    assert not any("\n" in event or "\r" in event for event in events)
    assert format_of(events[0].encode()) == format_
    assert [decode_line(event.encode(), format_).decode() for event in events] == LINES


@pytest.mark.parametrize("format_", ["ocsf", "cef"])
def test_a_field_that_says_something_else_than_the_entry_is_found(format_):
    event = encode_line(LINES[3], format_)
    forged = re.sub("refused", "done", event, count=1)
    assert forged != event
    with pytest.raises(LogError, match="something else"):
        decode_line(forged.encode(), format_)


def test_an_ocsf_event_has_what_the_schema_of_api_activity_asks_for():
    event = json.loads(encode_line(LINES[3], "ocsf"))
    required = ("activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "time")
    assert set(required) < set(event)
    assert (event["class_uid"], event["type_uid"]) == (6003, 600301)
    assert event["status_id"] == 2
    assert event["metadata"]["version"] == "1.3.0"
    assert event["actor"]["user"]["name"] == "admin"
    assert event["api"]["operation"] == "key.create"


def parse_cef(event):
    """A reader of CEF of our own: header split at bare bars, values up to the next bare ` key=`."""
    head = re.split(r"(?<!\\)(?:\\\\)*\|", event, maxsplit=7)
    extension = head[7]
    keys = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", extension))
    values = {}
    for found, following in zip(keys, [*keys[1:], None], strict=True):
        raw = extension[found.end() : following.start() if following else len(extension)]
        values[found[1]] = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), raw)
    return head, values


def test_cef_values_are_escaped():
    head, values = parse_cef(encode_line(LINES[2], "cef"))
    assert head[:3] == ["CEF:0", "Cloister", "Cloister"]
    assert values["suser"] == values["cs1"] == NASTY
    assert values["cs6"] == LINES[2]
    assert values["outcome"] == "done"
    assert int(values["rt"]) == 1_800_000_000_002


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3),
)
def test_whatever_is_in_an_entry_comes_back(principal, resource, detail):
    try:
        body = entry(1, principal=principal, resource=resource, detail=detail)
        body.decode()
    except UnicodeError:
        return
    line = f'{{"index":0,"salt":"{"A" * 43}","before":"","entry":{body.decode()}}}'
    for format_ in FORMATS:
        event = encode_line(line, format_)
        assert "\n" not in event
        assert decode_line(event.encode(), format_).decode() == line
    _, values = parse_cef(encode_line(line, "cef"))
    assert values["suser"] == principal
    assert values["cs1"] == resource


# --- the parsers ---


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_export_is_refused_with_our_error(data):
    lines = list(LINES)
    place = data.draw(st.integers(0, len(lines) - 1))
    line = lines[place].encode()
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != line[at]))
    mutated = line[:at] + bytes([byte]) + line[at + 1 :]
    raw = [
        *(text.encode() for text in lines[:place]),
        mutated,
        *(text.encode() for text in lines[place + 1 :]),
    ]
    try:
        verifier = ExportVerifier(raw[0], deployment=DEPLOYMENT)
        for found in raw[1:]:
            verifier.feed(found)
        found = verifier.finish()
    except LogError:
        return
    # Only what nobody signed may differ: how the evidence is written, which appraisal then decides about.
    assert place == 0
    assert (found.head.root, found.entries) == (LOG.head().root, 4)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_our_error(raw):
    with pytest.raises(LogError):
        ExportVerifier(raw, deployment=None)
    verifier = ExportVerifier(LINES[0].encode(), deployment=None)
    with pytest.raises(LogError):
        verifier.feed(raw)
    for format_ in ("ocsf", "cef"):
        with pytest.raises(LogError):
            decode_line(raw, format_)


def test_what_is_too_large_is_refused():
    with pytest.raises(LogError):
        ExportVerifier(b'{"format":"' + b"x" * (2 * 1024 * 1024), deployment=None)
    verifier = ExportVerifier(LINES[0].encode(), deployment=None)
    with pytest.raises(LogError):
        verifier.feed(b"x" * (2 * 1024 * 1024 + 1))
    with pytest.raises(LogError):
        decode_line(b"CEF:" + b"x" * (16 * 1024 * 1024), "cef")


# --- one entry ---


def proof(**changes):
    head = LOG.head()
    document = prove_document(
        {
            "index": 9,
            "salt": jose.b64url_encode(salt_of(9)),
            "entry": MINE[9].decode(),
            "path": jose.b64url_encode(b"".join(LOG.inclusion(9, head.size))),
            "head": head.token,
            "evidence": LOG.evidence().to_json(),
        }
    )
    return document | changes


def test_the_proof_of_an_entry_verifies_by_itself():
    found = verify_entry_proof(proof(), deployment=DEPLOYMENT)
    assert (found.index, found.entry["outcome"], found.head.size) == (9, "refused", 37)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "x"},
        {"v": 2},
        {"index": 8},
        {"index": True},
        {"salt": jose.b64url_encode(salt_of(8))},
        {"salt": "="},
        {"entry": MINE[9].decode().replace("refused", "done")},
        {"entry": "7"},
        {"path": ""},
        {"path": "A" * 43},
        {"head": MemoryLog().head().token},
        {"evidence": {}},
        {"evidence": MemoryLog().evidence().to_json()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_proof_of_an_entry_with_one_member_changed_is_refused(changes):
    with pytest.raises(LogError):
        verify_entry_proof(proof(**changes), deployment=DEPLOYMENT)


@given(st.dictionaries(st.sampled_from(list(proof())), st.none() | st.text() | st.integers() | st.just({})))
def test_a_proof_of_anything_else_is_refused_with_our_error(changes):
    document = proof() | changes
    try:
        verify_entry_proof(document, deployment=DEPLOYMENT)
    except CloisterError:
        return
    assert document == proof()
