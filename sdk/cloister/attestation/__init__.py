"""Decide whether an enclave is the one we meant to talk to (RFC 9334).

Two steps, kept apart: *authenticate* asks "is this evidence genuine?", *appraise* asks "is what it
says acceptable?". Neither reads a clock or the network; time, anchors and nonces are arguments.
The parsers of the hardware formats are imported when the first document of their kind arrives.
"""

from __future__ import annotations

from cloister.attestation.appraise import Appraisal, appraise, appraise_claims, appraise_freshness
from cloister.attestation.authenticate import authenticate
from cloister.attestation.binding import report_data
from cloister.attestation.evidence import AuthenticEvidence, Environment, Format, format_named
from cloister.attestation.policy import AppraisalPolicy

__all__ = [
    "Appraisal",
    "AppraisalPolicy",
    "AuthenticEvidence",
    "Environment",
    "Format",
    "appraise",
    "appraise_claims",
    "appraise_freshness",
    "authenticate",
    "format_named",
    "report_data",
]
