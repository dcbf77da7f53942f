"""Cloister for Google Cloud: BigQuery remote functions, Cloud Run functions, sealed values.

    from cloister_gcp import Sealed, remote_function

    @remote_function("ssn-breached@prod", context=["member_id"], on_row_error="null")
    def ssn_breached(ssn: Sealed, member_id: int) -> bool: ...

is all of a `main.py` for Cloud Run functions. Nothing here opens a value.
"""

from cloister.envelope import Sealed
from cloister.faas import Enclave
from cloister.reply import Token
from cloister_gcp import gcs
from cloister_gcp.columns import seal_column
from cloister_gcp.events import message_of, object_of
from cloister_gcp.functions import confidential
from cloister_gcp.remote import remote_function, remote_functions

__all__ = [
    "Enclave",
    "Sealed",
    "Token",
    "confidential",
    "gcs",
    "message_of",
    "object_of",
    "remote_function",
    "remote_functions",
    "seal_column",
]
