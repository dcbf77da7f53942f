"""Cloister for Azure Functions: receive calls that are proven to come from the enclave, each once.

    from cloister_azure import BlobOnce, Delivery, from_enclave

    @app.route(route="pins", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
    @from_enclave("pin-transfer@prod", once=BlobOnce("deliveries"))
    def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:
        delivery.store({"account": delivery.payload.account, "token": delivery.payload.token})
        return func.HttpResponse(status_code=204)

The signature is the authentication, so the route needs no function key. Nothing here opens a value.
"""

from cloister_azure.delivery import Delivery, Once
from cloister_azure.handlers import from_enclave
from cloister_azure.once import BlobOnce

__all__ = ["BlobOnce", "Delivery", "Once", "from_enclave"]
