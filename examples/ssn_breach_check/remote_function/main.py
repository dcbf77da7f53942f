"""The BigQuery remote function, for Cloud Run functions: passes sealed numbers on, gives booleans back.

`cloister gcp ddl main:ssn_breached ...` prints the SQL that declares it.
"""

from __future__ import annotations

from cloister_gcp import Sealed, remote_function

__all__ = ["ssn_breached"]

ssn_breached = remote_function(
    "ssn-breached@prod",
    args={"ssn": Sealed, "member_id": int},
    context=["member_id"],
    returns=bool,
    on_row_error="null",
)
