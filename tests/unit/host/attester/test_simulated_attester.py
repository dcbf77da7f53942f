"""What the simulated attester makes, the client authenticates and appraises."""

from __future__ import annotations

from datetime import UTC, datetime

from cloister import attestation
from cloister_host.attester import Attester
from cloister_host.attester.simulated import SimulatedAttester


def test_simulated_evidence_answers_its_challenge() -> None:
    now = 1_790_000_000
    attester: Attester = SimulatedAttester("image-1", clock=lambda: now)
    at = datetime.fromtimestamp(now, UTC)
    evidence = attestation.authenticate(
        attester.evidence(statement=b"{}", nonce=b"n" * 32), format=attester.format, at=at
    )
    policy = attestation.AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "environment": "simulated",
            "tee": {"simulated": {"reference": [{"name": "dev", "measurement": "image-1"}]}},
        }
    )
    assert attestation.appraise(evidence, policy, statement=b"{}", nonce=b"n" * 32, at=at).reference == "dev"
