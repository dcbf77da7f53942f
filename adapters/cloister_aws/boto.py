"""The edge of boto3, which is imported when it is used: it takes 0.2 s."""

from __future__ import annotations

from typing import Any

__all__ = ["boto_errors", "error_code"]


def boto_errors() -> tuple[type[Exception], ...]:
    """Every exception that a call through boto3 raises."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415 (as boto3)

    return BotoCoreError, ClientError, HTTPClientError


def error_code(error: Exception) -> str:
    """AWS's own code of an error; empty if it never answered."""
    response: Any = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
