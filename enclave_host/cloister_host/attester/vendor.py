"""Ask AMD, Intel and Google for endorsements: fixed origins, no credentials, nothing believed.

What comes back is taken only if this machine's own evidence is authentic with it, so neither TLS nor the
origin is what protects a client; the list of origins keeps the host from being sent elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from cloister.errors import UnavailableError

__all__ = ["get"]

TIMEOUT_SECONDS: Final = 10.0
MAX_BYTES: Final = 1024 * 1024
_ADDRESSES: Final = re.compile(
    r"https://(kdsintf\.amd\.com|(api|certificates)\.trustedservices\.intel\.com)/[!-~]{1,2000}"
    r"|https?://(privateca-content-[0-9a-f-]{1,64}\.storage|pki)\.(googleapis|goog)(\.com)?/[!-~]{1,500}"
)


def get(address: str) -> tuple[bytes, Mapping[str, str]]:
    """Fetch one address; the headers' names are in lower case.

    Raises:
        UnavailableError: It is not a vendor's, does not answer, or answers too much.
    """
    if _ADDRESSES.fullmatch(address) is None:
        raise UnavailableError("endorsements are fetched from AMD, Intel and Google only", retryable=False)
    import httpx  # noqa: PLC0415 (most hosts never ask)

    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", address) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise UnavailableError(f"{httpx.URL(address).host} answered {response.status_code}")
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise UnavailableError(f"{httpx.URL(address).host} answered too much")
    except httpx.HTTPError:
        raise UnavailableError(f"{httpx.URL(address).host} does not answer") from None
    return body, {name.lower(): value for name, value in response.headers.items()}
