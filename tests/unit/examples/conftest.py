"""The examples are scripts and bundles: their folders are import paths, not packages."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"
sys.path[:0] = [
    str(EXAMPLES / "credit_forecast"),
    *(str(EXAMPLES / name / "function") for name in ("credit_forecast", "ssn_breach_check", "pin_transfer")),
]
