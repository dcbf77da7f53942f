"""Keys on their way in and out: wrapped by HPKE, bound to tenant, kid and purpose (SPEC section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from cloister import jose
from cloister.errors import ConfigurationError, OpenError
from cloister.jose.strict_json import dump_compact, load_object

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Direction", "KeyName", "symmetric_jwk", "unwrap_key_material", "wrap_key_material"]

TRANSFER_TYP: Final = "cloister-key+jwe"
MAX_CHARS: Final = 64 * 1024
SYMMETRIC_BYTES: Final = 32
_LABEL: Final = {"import": b"cloister.import.v1\xff", "export": b"cloister.export.v1\xff"}

Direction = Literal["import", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """What a wrapped key is: as another tenant's, version's or purpose's it does not unwrap."""

    tenant: str
    kid: str
    purpose: str
    alg: str

    def info(self, direction: Direction) -> bytes:
        """The HPKE info. The members are ASCII names, so this is their JCS."""
        members = {"alg": self.alg, "kid": self.kid, "purpose": self.purpose, "tenant": self.tenant}
        return _LABEL[direction] + dump_compact(members)


def wrap_key_material(
    jwk: Mapping[str, Any], to: Mapping[str, Any] | jose.Key, name: KeyName, direction: Direction
) -> str:
    """Wrap a private or symmetric JWK to an HPKE public half.

    Raises:
        ConfigurationError: The recipient's key is no HPKE key.
    """
    members = {key: value for key, value in jwk.items() if key != "kid"}
    recipient = jose.Key.from_jwk(to) if not isinstance(to, jose.Key) else to
    if not recipient.alg.startswith("HPKE"):
        raise ConfigurationError("keys are wrapped to HPKE keys only", hint="HPKE-10-KE or HPKE-7-KE")
    return jose.encrypt_compact(
        dump_compact(members), recipient.public(), typ=TRANSFER_TYP, info=name.info(direction)
    )


def unwrap_key_material(
    wrapped: str, key: Mapping[str, Any] | jose.Key, name: KeyName, direction: Direction
) -> dict[str, Any]:
    """Unwrap a JWK; whether it is a good key is the caller's to check.

    Raises:
        OpenError: It was wrapped to another key, or as another tenant's, version's or purpose's.
    """
    if len(wrapped) > MAX_CHARS:
        raise OpenError
    plain = jose.decrypt_compact(wrapped, key, typ=TRANSFER_TYP, info=name.info(direction))
    try:
        return load_object(plain)
    except ValueError:
        raise OpenError from None


def symmetric_jwk(octets: bytes, alg: str) -> dict[str, str]:
    """A symmetric key of 32 bytes as the JWK that is wrapped.

    Raises:
        ConfigurationError: It has another length, or is all zero.
    """
    if len(octets) != SYMMETRIC_BYTES or not any(octets):
        raise ConfigurationError(f"a symmetric key has {SYMMETRIC_BYTES} bytes that are not all zero")
    return {"kty": "oct", "alg": alg, "k": jose.b64url_encode(octets)}
