"""The examples are scripts and bundles: their folders are import paths, not packages."""

from __future__ import annotations

import sys
from pathlib import Path

CREDIT = Path(__file__).parents[3] / "examples" / "credit_forecast"
sys.path[:0] = [str(CREDIT), str(CREDIT / "function")]
