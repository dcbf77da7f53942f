"""Cloister for AWS Lambda: handlers that call confidential functions, and sealed values in S3.

    from cloister_aws import Enclave, confidential, s3

    @confidential("credit-forecast@prod")
    def handler(event, context, *, enclave: Enclave):
        reply = enclave(
            history=s3.get_sealed(event["bucket"], event["key"]), context={"customer": event["customer"]}
        )
        return {"forecast": reply.value, "receipt": reply.receipt.id}

Settings come from `CLOISTER_*` environment variables. Nothing here opens a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.faas import AsyncEnclave, Enclave
from cloister_aws import s3
from cloister_aws.events import Source, source_of
from cloister_aws.handlers import confidential

if TYPE_CHECKING:
    from cloister_aws.fields import mask_fields, seal_fields

__all__ = [
    "AsyncEnclave",
    "Enclave",
    "Source",
    "confidential",
    "mask_fields",
    "s3",
    "seal_fields",
    "source_of",
]


def __getattr__(name: str) -> Any:
    """The decorators for fields, which take 20 ms to load, for those who use them."""
    if name not in {"mask_fields", "seal_fields"}:
        raise AttributeError(f"module 'cloister_aws' has no attribute {name!r}")
    from cloister_aws import fields  # noqa: PLC0415 (on first use)

    return getattr(fields, name)
