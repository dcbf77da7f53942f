"""Cloister for Azure Functions: call the enclave, and receive calls that are proven to come from it.

    from cloister_azure import Enclave, confidential

    @app.route(route="forecasts", methods=["POST"])
    @confidential("credit-forecast@prod")
    def forecast(req: func.HttpRequest, *, enclave: Enclave) -> func.HttpResponse:
        return enclave(history=req.get_json()["history"])

    from cloister_azure import BlobOnce, Delivery, from_enclave

    @app.route(route="pins", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
    @from_enclave("pin-transfer@prod", once=BlobOnce("deliveries"))
    def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:
        delivery.store({"account": delivery.payload.account, "token": delivery.payload.token})
        return func.HttpResponse(status_code=204)

Settings come from `CLOISTER_*` app settings. Nothing here opens a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.faas import AsyncEnclave, Enclave
from cloister_azure.functions import confidential

if TYPE_CHECKING:
    from cloister_azure import blob
    from cloister_azure.delivery import Delivery, Once
    from cloister_azure.fields import mask_fields, seal_fields
    from cloister_azure.handlers import from_enclave
    from cloister_azure.once import BlobOnce

__all__ = [
    "AsyncEnclave",
    "BlobOnce",
    "Delivery",
    "Enclave",
    "Once",
    "blob",
    "confidential",
    "from_enclave",
    "mask_fields",
    "seal_fields",
]

_LATER = {
    "BlobOnce": "once",
    "Delivery": "delivery",
    "Once": "delivery",
    "from_enclave": "handlers",
    "mask_fields": "fields",
    "seal_fields": "fields",
}
"""What takes longer to load than a function that calls the enclave needs, by its module."""


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415 (on first use)

    if name == "blob":
        return importlib.import_module("cloister_azure.blob")
    if name not in _LATER:
        raise AttributeError(f"module 'cloister_azure' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cloister_azure.{_LATER[name]}"), name)
