"""The credit officer's side, outside the cloud: open a forecast that the Lambda function returned.

    aws lambda invoke ... answer.json && python officer.py 6003 answer.json

Runs as a principal that may open values under `forecasts` and nothing else; every opening is audited.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloister import Client

__all__ = ["describe", "open_forecast"]


def open_forecast(client: Client, sealed: str, *, customer: str) -> Mapping[str, Any]:
    """Open a forecast of this customer.

    Raises:
        OpenError: It is not this customer's forecast, or it was changed.
        DeniedError: The principal may not open forecasts.
    """
    forecast = client.open(sealed, context={"customer": customer})
    if not isinstance(forecast, dict):
        raise TypeError("a forecast is a JSON object")
    return forecast


def describe(forecast: Mapping[str, Any]) -> str:
    """A forecast in words, for the officer's eyes."""
    headline = (
        f"{forecast['month']}: balance NT$ {forecast['next_balance']:,.0f} "
        f"({forecast['interval_low']:,.0f} to {forecast['interval_high']:,.0f}), "
        f"probability of default {forecast['probability_of_default']:.1%}"
    )
    reasons = [f"{reason['code']}  {reason['text']}" for reason in forecast["reasons"]]
    return "\n    ".join([headline, *reasons])


def main(arguments: list[str]) -> int:
    """Print one customer's forecast."""
    if len(arguments) != 2:  # noqa: PLR2004 - customer and file
        print(__doc__)
        return 2
    customer, answer = arguments[0], json.loads(Path(arguments[1]).read_text("utf-8"))
    with Client.from_env() as client:
        print(describe(open_forecast(client, answer["forecast"], customer=customer)))
    print(f"receipt {answer['receipt']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
