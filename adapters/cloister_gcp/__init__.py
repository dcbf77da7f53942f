"""Cloister for Google Cloud: BigQuery remote functions over sealed columns, and sealing before a load.

    from cloister_gcp import Sealed, remote_function

    @remote_function("ssn-breached@prod", context=["member_id"], on_row_error="null")
    def ssn_breached(ssn: Sealed, member_id: int) -> bool: ...

is all of a `main.py` for Cloud Run functions. Nothing here opens a value.
"""

from cloister.envelope import Sealed
from cloister.reply import Token
from cloister_gcp.columns import seal_column
from cloister_gcp.remote import remote_function, remote_functions

__all__ = ["Sealed", "Token", "remote_function", "remote_functions", "seal_column"]
