"""The Cloud Run function behind `ssn_breached`: it passes ciphertext on, and booleans back."""

from cloister_gcp import Sealed, remote_function

ssn_breached = remote_function(
    "ssn-breached@prod",
    args={"ssn": Sealed, "member_id": int},
    context=["member_id"],
    returns=bool,
    on_row_error="null",
)
