"""Bodies of requests, within their limits."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from cloister.errors import LimitError, UnavailableError

__all__ = ["read_body"]


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The request's body, refused as soon as it is known to be too large.

    Raises:
        LimitError: It is.
        UnavailableError: The client went away.
    """
    too_large = LimitError("the request is too large", hint=f"at most {max_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise UnavailableError("the client went away") from None
    return b"".join(chunks)
