"""The one error of the BigQuery double."""

from __future__ import annotations

from typing import Any

__all__ = ["ApiError"]


class ApiError(Exception):
    """An error as the BigQuery API reports it.

    Attributes:
        status: The HTTP status.
        reason: BigQuery's name for it, "notFound" say.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    def to_rest(self) -> dict[str, Any]:
        """The body of the error response."""
        return {"error": {"code": self.status, "message": str(self), "errors": [self.to_proto()]}}

    def to_proto(self) -> dict[str, str]:
        """The `ErrorProto` of a failed job."""
        return {"reason": self.reason, "message": str(self), "domain": "global", "location": "query"}


def not_found(what: str) -> ApiError:
    """Something that was named does not exist."""
    return ApiError(404, "notFound", f"Not found: {what}")


def not_supported(what: str) -> ApiError:
    """Something BigQuery can do and this double cannot: said, never ignored."""
    return ApiError(501, "notImplemented", f"the local BigQuery does not support {what}")
