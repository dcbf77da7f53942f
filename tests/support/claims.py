"""What a receipt in a reply says, without verifying it."""

from __future__ import annotations

import json
from typing import Any

from cloister import jose

__all__ = ["claims_of", "disclosed"]


def claims_of(result: dict[str, Any]) -> dict[str, Any]:
    """The claims that everyone sees."""
    payload = result["receipt"]["receipt"].split(".")[1]
    claims: dict[str, Any] = json.loads(jose.b64url_decode(payload))
    return claims


def disclosed(result: dict[str, Any]) -> dict[str, Any]:
    """The claims that only the caller can read, by name."""
    items = (json.loads(jose.b64url_decode(text)) for text in result["receipt"]["disclosures"])
    return {name: value for _salt, name, value in items}
