"""Turn rows of the credit card data set into histories, ready to be sealed.

    python histories.py data/credit_card_default.csv.gz 6003      # one customer's history as JSON

The columns are those of UCI's *Default of Credit Card Clients*: index 1 (0 for the status) is September
2005, index 6 is April. Numbers may be in scientific notation and are read exactly.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The bundle's modules are top-level modules, in the enclave and here.
sys.path.insert(0, str(HERE / "function"))

from history import History, HistoryError, Month, check_history  # noqa: E402 - found through the line above

__all__ = [
    "DATA",
    "RowError",
    "history_from_row",
    "outcome_from_row",
    "read_histories",
    "read_rows",
    "to_json",
]

DATA = HERE / "data" / "credit_card_default.csv.gz"
_MONTHS = ("2005-04", "2005-05", "2005-06", "2005-07", "2005-08", "2005-09")
_STATUS_COLUMNS = ("PAY_6", "PAY_5", "PAY_4", "PAY_3", "PAY_2", "PAY_0")
_OUTCOME_COLUMNS = ("class", "default payment next month", "default.payment.next.month")
_MAX_EXPONENT = 15


class RowError(ValueError):
    """A row that is not a customer's history. Messages name the column, never the value."""


def read_rows(path: Path = DATA) -> Iterator[dict[str, str]]:
    """Read the rows of a CSV file, gzipped if its name ends in `.gz`."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))


def read_histories(path: Path = DATA) -> Iterator[tuple[str, History]]:
    """Read (customer, history) pairs.

    Raises:
        RowError: A column is missing or holds no number, or the history cannot be scored.
    """
    for row in read_rows(path):
        yield str(_whole(row, "ID")), history_from_row(row)


def history_from_row(row: Mapping[str, str]) -> History:
    """Turn one row into a history; the demographic columns are not read.

    Raises:
        RowError: A column is missing or holds no number, or the history cannot be scored.
    """
    months = [
        Month(
            month=month,
            status=_whole(row, status),
            balance=_amount(row, f"BILL_AMT{index}"),
            payment=_amount(row, f"PAY_AMT{index}"),
        )
        for month, status, index in zip(_MONTHS, _STATUS_COLUMNS, range(6, 0, -1), strict=True)
    ]
    history = History(currency="TWD", credit_limit=_amount(row, "LIMIT_BAL"), months=months)
    try:
        check_history(history)
    except HistoryError as error:
        raise RowError(str(error)) from None
    return history


def outcome_from_row(row: Mapping[str, str]) -> bool:
    """Whether the customer defaulted in October 2005."""
    column = next((name for name in _OUTCOME_COLUMNS if name in row), _OUTCOME_COLUMNS[0])
    outcome = _whole(row, column)
    if outcome not in {0, 1}:
        raise RowError(f"{column} must be 0 or 1")
    return outcome == 1


def to_json(history: History) -> str:
    """The history as the JSON text that is sealed."""
    return json.dumps(asdict(history), separators=(",", ":"))


def _amount(row: Mapping[str, str], column: str) -> float:
    number = _number(row, column)
    return int(number) if number == number.to_integral_value() else float(number)


def _whole(row: Mapping[str, str], column: str) -> int:
    number = _number(row, column)
    if number != number.to_integral_value():
        raise RowError(f"{column} must be a whole number")
    return int(number)


def _number(row: Mapping[str, str], column: str) -> Decimal:
    """Read a cell exactly: `2.00E+05` is 200000, not a float that may be near it."""
    try:
        number = Decimal(row[column].strip())
    except KeyError:
        raise RowError(f"the column {column} is missing") from None
    except (AttributeError, InvalidOperation):
        raise RowError(f"{column} is not a number") from None
    if not number.is_finite() or number.adjusted() > _MAX_EXPONENT:
        raise RowError(f"{column} is not a number in range")
    return number


def main(arguments: list[str]) -> int:
    """Print the history of one customer."""
    if len(arguments) != 2:  # noqa: PLR2004 - file and customer
        print(__doc__)
        return 2
    path, wanted = Path(arguments[0]), arguments[1]
    for customer, history in read_histories(path):
        if customer == wanted:
            print(to_json(history))
            return 0
    print(f"{path.name} has no customer {wanted}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
