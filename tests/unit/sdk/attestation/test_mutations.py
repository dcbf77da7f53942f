"""No altered document passes, and hostile bytes raise only our errors."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister import attestation
from cloister.attestation import Format
from cloister.errors import AttestationError, EvidenceError
from support.evidence_vectors import BY_NAME, DOCUMENTS, Document, read

BY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
SAMPLES = 240
"""Flips tried on each document; the stride is odd, so that repeated fields are hit at all offsets."""


@BY_DOCUMENT
def test_a_flipped_byte_is_refused(document: Document) -> None:
    good = read(document.name)
    stride = max(1, len(good) // SAMPLES) | 1
    masks = itertools.cycle((0x01, 0x80, 0x20, 0xFF))
    for position, mask in zip(range(0, len(good), stride), masks, strict=False):
        mutated = bytearray(good)
        mutated[position] ^= mask
        if document.format in {Format.TPM, Format.AZURE_VTPM} and _same_json(good, bytes(mutated)):
            continue  # white space between members of a container that is not signed as a whole
        with pytest.raises(EvidenceError):
            document.authenticate(bytes(mutated))


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


@BY_DOCUMENT
def test_a_truncated_document_is_refused(document: Document) -> None:
    good = read(document.name).rstrip(b"\n")
    for size in {0, 1, 2, 31, len(good) // 3, len(good) // 2, len(good) - 64, len(good) - 2, len(good) - 1}:
        with pytest.raises(EvidenceError):
            document.authenticate(good[:size])


@BY_DOCUMENT
@pytest.mark.parametrize(
    "extension", [b"\0", b"\0" * 8, b"x", b"\xf6"], ids=["zero", "zeros", "text", "null"]
)
def test_an_extended_document_is_refused(document: Document, extension: bytes) -> None:
    good = read(document.name)
    for extended in (good + extension, extension + good):
        with pytest.raises(EvidenceError):
            document.authenticate(extended)


@pytest.mark.parametrize("name", [document.name for document in DOCUMENTS if document.endorsements])
def test_a_flipped_byte_of_the_chip_certificate_is_refused(name: str) -> None:
    document = BY_NAME[name]
    good = read(document.endorsements[0])
    for position in range(0, len(good), 13):
        mutated = bytearray(good)
        mutated[position] ^= 1
        with pytest.raises(EvidenceError):
            document.authenticate(endorsements=[bytes(mutated)])


@pytest.mark.parametrize("name", [document.name for document in DOCUMENTS if document.collateral])
def test_altered_collateral_is_refused(name: str) -> None:
    document = BY_NAME[name]
    good = json.loads(read(document.collateral))
    for member, text in good.items():
        if member == "pck_crl_issuer_chain":
            continue  # its certificates come with the quote as well, and are taken from there
        for position in range(40, len(text), max(1, len(text) // 12)):
            if not text[position].isalnum():
                continue
            other = "0" if text[position] != "0" else "1"
            altered = good | {member: text[:position] + other + text[position + 1 :]}
            if _only_an_unused_certificate_changed(good, altered, member):
                continue
            with pytest.raises(EvidenceError):
                document.authenticate(collateral=json.dumps(altered).encode())
        without = {key: value for key, value in good.items() if key != member}
        with pytest.raises(EvidenceError):
            document.authenticate(collateral=json.dumps(without).encode())


def _only_an_unused_certificate_changed(good: dict[str, str], altered: dict[str, str], member: str) -> bool:
    """Whether the change is in the root of a chain: the pinned root is used instead of it."""
    first = good[member].partition("-----END CERTIFICATE-----")[0]
    return member.endswith("_chain") and altered[member].startswith(first)


@pytest.mark.parametrize("name", [document.name for document in DOCUMENTS if document.endorsements])
def test_a_report_does_not_pass_with_another_documents_endorsements(name: str) -> None:
    document = BY_NAME[name]
    for other in DOCUMENTS:
        if other.endorsements and other is not document:
            with pytest.raises(EvidenceError):
                document.authenticate(endorsements=[read(name) for name in other.endorsements])


FORMATS = st.sampled_from(list(Format))


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=2048), format_=FORMATS, jwks=st.none() | st.binary(max_size=64))
def test_random_bytes_raise_only_our_errors(raw: bytes, format_: Format, jwks: bytes | None) -> None:
    with pytest.raises(AttestationError):
        attestation.authenticate(raw, format=format_, at=DOCUMENTS[0].at, jwks=jwks, collateral=raw)


@settings(max_examples=400, deadline=None)
@given(document=st.sampled_from(DOCUMENTS), data=st.data())
def test_spliced_documents_raise_only_our_errors(document: Document, data: st.DataObject) -> None:
    good = read(document.name)
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 64)))
    filling = data.draw(st.binary(max_size=64))
    with contextlib.suppress(AttestationError):
        document.authenticate(good[:start] + filling + good[end:])


@settings(max_examples=200, deadline=None)
@given(document=st.sampled_from(DOCUMENTS), junk=st.binary(max_size=256))
def test_junk_beside_the_evidence_raises_only_our_errors(document: Document, junk: bytes) -> None:
    changes: list[dict[str, Any]] = [{"collateral": junk}, {"jwks": junk}]
    for item in (junk, b"-----BEGIN CERTIFICATE-----\n" + junk):
        changes += [{"endorsements": [item]}, {"trust_anchors": [item]}]
    for change in changes:
        with contextlib.suppress(AttestationError):
            document.authenticate(**change)
