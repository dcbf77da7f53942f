"""Who deploys: a bundle's digest, signed by a key that the tenant has registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.errors import ConfigurationError, EvidenceError
from cloister.jose.keys import as_key

__all__ = ["sign_bundle", "verify_bundle"]

BUNDLE_TYP: Final = "cloister-bundle+jwt"


def sign_bundle(digest: str, *, function: str, tenant: str, key: Mapping[str, Any] | jose.Key) -> str:
    """Sign for the deployment of one digest, under one name, in one tenant.

    Args:
        digest: SHA-256 of the bundle.
        function: Its name.
        tenant: Where it is deployed.
        key: Private key whose `kid` is the signer's name.

    Raises:
        ConfigurationError: The key does not sign, or has no `kid`.
    """
    if not as_key(key).kid:
        raise ConfigurationError("the key names no signer", hint="make one with `cloister signer create`")
    claims = {"digest": digest, "function": function, "tenant": tenant}
    return jose.sign_compact(rfc8785.dumps(claims), key, typ=BUNDLE_TYP)


def verify_bundle(
    token: str, key: Mapping[str, Any] | jose.Key, *, digest: str, function: str, tenant: str
) -> None:
    """Verify that this deployment was signed for.

    Raises:
        EvidenceError: It was not.
    """
    claims = jose.verify_claims(token, key, typ=BUNDLE_TYP)
    if claims != {"digest": digest, "function": function, "tenant": tenant}:
        raise EvidenceError("the signature is for another bundle, function or tenant")
