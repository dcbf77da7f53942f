"""What the adapters share: a process's one client, the injected `Enclave`, and errors without data."""

from cloister.faas.enclave import AsyncEnclave, Enclave, FunctionName, Invoker, idempotency_key
from cloister.faas.scrub import data_free, scrubbed
from cloister.faas.shared import forget_shared_client, shared_client
from cloister.faas.signature import hide_parameter

__all__ = [
    "AsyncEnclave",
    "Enclave",
    "FunctionName",
    "Invoker",
    "data_free",
    "forget_shared_client",
    "hide_parameter",
    "idempotency_key",
    "scrubbed",
    "shared_client",
]
