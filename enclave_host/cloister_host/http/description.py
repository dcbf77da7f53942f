"""The API description (OpenAPI 3.1): the clear endpoints, and every sealed operation with its schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloister_host.operations import Operation

__all__ = ["describe"]


def describe(operations: Mapping[str, Operation], *, version: str) -> bytes:
    """The description as JSON.

    Sealed operations all travel through `POST /v1/sealed`; they are listed under `x-operations`,
    each with the schema of its payload.
    """
    names = sorted(operations)
    schemas, components = msgspec.json.schema_components(
        [operations[name].request_type for name in names], ref_template="#/components/schemas/{name}"
    )
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Cloister enclave host", "version": version},
        "paths": {
            "/v1/sealed": {
                "post": {
                    "summary": "One sealed request, one sealed reply (cloister/protocol/SPEC.md)",
                    "requestBody": _content("application/jose", {"type": "string"}),
                    "responses": {
                        "200": {
                            "description": "Sealed reply",
                            **_content("application/jose", {"type": "string"}),
                        },
                        "default": {"description": "The request did not open (RFC 9457)"},
                    },
                }
            },
            "/v1/attestation": {
                "post": {
                    "summary": "Evidence over the keyset, bound to a fresh nonce",
                    "requestBody": _content(
                        "application/json",
                        {
                            "type": "object",
                            "required": ["nonce"],
                            "properties": {"nonce": {"type": "string"}},
                        },
                    ),
                    "responses": {"200": {"description": "Attestation document"}},
                }
            },
            **{
                path: {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
                for path, summary in {
                    "/healthz": "The process is up",
                    "/readyz": "The host can serve, and with what",
                    "/metrics": "Prometheus metrics without tenant, function or outcome labels",
                    "/openapi.json": "This description",
                }.items()
            },
        },
        "components": {"schemas": components},
        "x-operations": {
            name: {"payload": schema, "effect": operations[name].effect}
            for name, schema in zip(names, schemas, strict=True)
        },
    }
    return msgspec.json.encode(document)


def _content(media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}
