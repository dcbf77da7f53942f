"""Endorsements are stapled only if they make this machine's evidence authentic, and are kept fresh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.attestation import Format
from cloister.attestation.fetching import Fetched
from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.attester import endorsements, vendor
from cloister_host.attester.endorsements import Endorser
from support import evidence_builders as make
from support.evidence_builders import AmdIssuer
from support.host_world import Clock

TCB = {1: 2, 2: 0, 3: 4, 8: 72, 9: 1}


@pytest.fixture(scope="module")
def issuer() -> AmdIssuer:
    return AmdIssuer()


class Machine:
    """An SEV-SNP attester whose chip has a certificate."""

    format = Format.SEV_SNP

    def __init__(self, issuer: AmdIssuer) -> None:
        self.issuer = issuer

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        from cloister.attestation import report_data

        return self.issuer.report(report_data=report_data(self.format, statement, nonce)["report_data"])


class Vendor:
    def __init__(self, issuer: AmdIssuer) -> None:
        self.good = Fetched(
            endorsements=(issuer.chip(tcb=TCB, hardware_id=b"\x11" * 8), make.der(issuer.ask))
        )
        self.answer: Fetched | None = self.good

    def __call__(self, _evidence: bytes) -> Fetched:
        if self.answer is None:
            raise UnavailableError("the vendor does not answer")
        return self.answer


def endorser(issuer: AmdIssuer, fetch: Vendor | None, place: Path, folder: Path | None = None) -> Endorser:
    clock = Clock()
    clock.now = make.AT.timestamp()
    anchors = (make.der(issuer.ark),)
    return Endorser(
        Machine(issuer),
        clock=clock,
        fetch=fetch,
        folder=folder,
        cache=place / "cache.json",
        trust_anchors=anchors,
    )


def test_what_the_vendor_gives_is_stapled_and_kept(issuer: AmdIssuer, tmp_path: Path) -> None:
    fetch = Vendor(issuer)
    first = endorser(issuer, fetch, tmp_path)
    assert first.recognise().environment == "test"
    assert first.current() == fetch.good
    fetch.answer = None
    second = endorser(issuer, fetch, tmp_path)
    second.recognise()
    assert second.current() == fetch.good


def test_an_answer_that_does_not_fit_replaces_nothing(issuer: AmdIssuer, tmp_path: Path) -> None:
    fetch = Vendor(issuer)
    held = endorser(issuer, fetch, tmp_path)
    held.recognise()
    for answer in (None, Fetched(), Fetched(endorsements=(b"junk",))):
        fetch.answer = answer
        assert not held.refresh()
        assert held.current() == fetch.good


def test_a_newer_answer_replaces_the_older(issuer: AmdIssuer, tmp_path: Path) -> None:
    fetch = Vendor(issuer)
    held = endorser(issuer, fetch, tmp_path)
    held.recognise()
    fetch.answer = Fetched(endorsements=(*fetch.good.endorsements, make.crl((issuer.ark, issuer.ark_key))))
    assert held.refresh()
    assert held.current() == fetch.answer


def test_the_timer_refreshes_and_ends(
    issuer: AmdIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endorsements, "PERIOD_SECONDS", 0.01)
    fetch = Vendor(issuer)
    held = endorser(issuer, fetch, tmp_path)
    held.recognise()
    fetch.answer = Fetched(endorsements=(*fetch.good.endorsements, make.crl((issuer.ark, issuer.ark_key))))
    held.start()
    while held.current() != fetch.answer:
        pass
    held.close()


def test_a_folder_serves_a_closed_network(issuer: AmdIssuer, tmp_path: Path) -> None:
    folder = tmp_path / "endorsements"
    folder.mkdir()
    for index, item in enumerate(Vendor(issuer).good.endorsements):
        (folder / f"{index}.der").write_bytes(item)
    assert endorser(issuer, None, tmp_path, folder=folder).recognise().environment == "test"


def test_without_any_source_the_machine_is_not_recognised(issuer: AmdIssuer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not authentic"):
        endorser(issuer, None, tmp_path).recognise()


def test_a_damaged_cache_is_passed_over(issuer: AmdIssuer, tmp_path: Path) -> None:
    fetch = Vendor(issuer)
    fetch.answer = None
    for text in ("", "{", "[]", json.dumps({"endorsements": ["*"], "collateral": None})):
        (tmp_path / "cache.json").write_text(text)
        with pytest.raises(ConfigurationError):
            endorser(issuer, fetch, tmp_path).recognise()


def test_evidence_that_answers_another_challenge_is_not_this_machines(
    issuer: AmdIssuer, tmp_path: Path
) -> None:
    held = endorser(issuer, Vendor(issuer), tmp_path)
    stale = issuer.report(report_data=b"\x07" * 64)
    held._attester.evidence = lambda **_: stale  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="not authentic"):
        held.recognise()


@pytest.mark.parametrize(
    "address",
    [
        "https://kdsintf.amd.com.example.com/x",
        "https://example.com/kdsintf.amd.com/x",
        "http://kdsintf.amd.com/x",
        "http://169.254.169.254/latest/meta-data",
        "https://storage.googleapis.com/bucket/x",
        "file:///etc/passwd",
    ],
)
def test_only_vendors_are_asked(address: str) -> None:
    with pytest.raises(UnavailableError, match="only"):
        vendor.get(address)
