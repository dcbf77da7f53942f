"""Whole columns at a time: the batch core of BigQuery remote functions and of Spark jobs.

    sealed = seal(client, values, key="ssn", contexts=contexts)
    tokens = tokenize(client, values, policy="ssn", idempotency_key=key)
    sealed.values, sealed.errors          # one value a row; a code for each row that has an error

A null row stays null and is never sent. A row that fails has an error of its own and no value; an outage is
never a row's error: it raises, so that the batch is sent again (`Patience`), under the same idempotency key.
"""

from cloister.columns.column import ROWS, Column, context_text
from cloister.columns.operations import invoke, mask, retokenize, rewrap, seal, show, tokenize
from cloister.columns.patience import Patience

__all__ = [
    "ROWS",
    "Column",
    "Patience",
    "context_text",
    "invoke",
    "mask",
    "retokenize",
    "rewrap",
    "seal",
    "show",
    "tokenize",
]
