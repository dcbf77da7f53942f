"""Recorded events, and the context that Lambda passes beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ARN", "EVENTS", "LambdaContext", "event"]

EVENTS = Path(__file__).parents[1] / "events" / "aws"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:forecast"


@dataclass
class LambdaContext:
    """What the adapter, and Powertools, read of it."""

    aws_request_id: str = "6f2c"
    invoked_function_arn: str = ARN
    function_name: str = "forecast"
    memory_limit_in_mb: int = 128

    def get_remaining_time_in_millis(self) -> int:
        """Time left."""
        return 30_000


def event(name: str) -> Any:
    """A fresh copy of a recorded event."""
    return json.loads((EVENTS / f"{name}.json").read_text())
