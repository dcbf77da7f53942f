"""The card application: takes PIN tokens from the enclave, and from nobody else, each delivery once."""

from __future__ import annotations

from dataclasses import dataclass

import azure.functions as func

from cloister_azure import BlobOnce, Delivery, from_enclave

app = func.FunctionApp()


@dataclass(frozen=True, slots=True, kw_only=True)
class PinToken:
    """What the confidential function lets out."""

    account: str
    token: str


@app.route(route="pins", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@from_enclave("pin-transfer@prod", once=BlobOnce("pins", connection="CARD_STORAGE"))
def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:  # noqa: ARG001 - Azure passes it
    """Store the token; the blob is the token's home and the record of the delivery in one."""
    delivery.store({"account": delivery.payload.account, "token": delivery.payload.token})
    return func.HttpResponse(status_code=204)
