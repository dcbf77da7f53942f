"""API keys: `clk_<id>_<secret>`, 256 random bits, stored as an HMAC under a root-derived key."""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass, field
from typing import Final

from cloister.errors import IdentityError
from cloister.jose import b64url_encode
from cloister.secret import Secret
from cloister_host.store.canonical import canonical

__all__ = ["ApiKeyHasher", "UnverifiedApiKey", "new_api_key", "parse_api_key"]

ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
# 32 bytes are 43 characters of base64url.
_FORM: Final = re.compile(r"clk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedApiKey:
    """An API key's two parts: a public name, and the secret that must hash right."""

    id: str
    secret: Secret = field(repr=False)


def new_api_key() -> tuple[UnverifiedApiKey, str]:
    """Draw an API key; the text is what its owner is given, once."""
    key_id, secret = os.urandom(ID_BYTES).hex(), b64url_encode(os.urandom(SECRET_BYTES))
    return UnverifiedApiKey(id=key_id, secret=Secret(secret.encode())), f"clk_{key_id}_{secret}"


def parse_api_key(text: str) -> UnverifiedApiKey:
    """Split an API key.

    Raises:
        IdentityError: It does not have the form of one.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise IdentityError("the credential was not accepted")
    return UnverifiedApiKey(id=match[1], secret=Secret(match[2].encode()))


class ApiKeyHasher:
    """Hashes API keys. 256 random bits need no slow hash; the key keeps the database's owner out."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def hash(self, tenant: str, api_key: UnverifiedApiKey) -> str:
        """The stored form of a key: bound to its tenant and its name."""
        message = canonical((tenant, api_key.id)) + api_key.secret.reveal()
        return b64url_encode(hmac.digest(self._key.reveal(), message, "sha256"))
