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

from cloister.faas import AsyncEnclave, Enclave
from cloister_aws import s3
from cloister_aws.events import Source, source_of
from cloister_aws.fields import mask_fields, seal_fields
from cloister_aws.handlers import confidential

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
