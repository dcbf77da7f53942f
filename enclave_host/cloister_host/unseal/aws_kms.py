"""Data keys of AWS KMS, which are released to an attested Nitro enclave alone.

Each call brings an attestation document with a public key that was made for this call. KMS compares the
document with the conditions of the key's policy (`kms:RecipientAttestation:...`) and answers with the data
key encrypted to that key, never in the clear ("Cryptographic attestation support in AWS KMS").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.errors import ConfigurationError, OpenError, UnavailableError
from cloister_host.unseal.cms import open_enveloped
from cloister_host.unseal.kms import CONTEXT
from cloister_host.unseal.settings import KmsSettings
from cloister_host.unseal.wrapped import changed

__all__ = ["AwsKms", "Recipient"]

RSA_BITS: Final = 2048
_KEY: Final = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:key/[A-Za-z0-9-]+")
_BUSY: Final = frozenset({"KMSInternalException", "DependencyTimeoutException", "ThrottlingException"})
_HINTS: Final[Mapping[str, str]] = {
    "AccessDeniedException": "look at the key's policy: its attestation conditions have to name this image",
    "NotFoundException": "look at --unseal-option kms-key",
    "DisabledException": "enable the key",
    "KMSInvalidStateException": "the key is being deleted: cancel that, or bring the recovery shares",
    "ValidationException": "the attestation document was refused: a debug enclave has none that counts",
}


class Recipient(Protocol):
    """Port: something that attests to a public key, so that answers are encrypted to it."""

    def recipient_document(self, public_key: bytes) -> bytes:
        """An attestation document with this public key (DER, SubjectPublicKeyInfo) in it.

        Raises:
            UnavailableError: It does not attest now.
        """


class AwsKms:
    """One symmetric key of AWS KMS.

    Args:
        settings: Which key.
        recipient: Attests to this enclave.

    Raises:
        ConfigurationError: The key is not named by its ARN, or the extra `aws` is not installed.
    """

    provider: Final = "aws-kms"

    def __init__(self, settings: KmsSettings, recipient: Recipient) -> None:
        named = _KEY.fullmatch(settings.key)
        if named is None:
            raise ConfigurationError(
                "the unseal provider `aws-kms` needs the ARN of a key, not of an alias",
                hint="--unseal-option kms-key=arn:aws:kms:eu-central-1:123456789012:key/...",
            )
        self.key: Final = settings.key
        self._recipient = recipient
        self._client, self._errors = _client(settings, region=named[1])

    def draw(self, place: str) -> tuple[bytes, bytes]:
        """A data key that KMS draws, and its wrapped form."""
        answer, key = self._ask("generate_data_key", place, KeySpec="AES_256")
        wrapped = answer.get("CiphertextBlob")
        if not isinstance(wrapped, bytes) or not wrapped:
            raise UnavailableError("AWS KMS did not answer with a wrapped data key")
        return key, wrapped

    def open(self, wrapped: bytes, place: str) -> bytes:
        """The data key again."""
        return self._ask("decrypt", place, CiphertextBlob=wrapped)[1]

    def require_gone(self, wrapped: bytes) -> None:  # noqa: ARG002 (of the port)
        """KMS does not know the key any more: its waiting period is over."""
        try:
            state = self._client.describe_key(KeyId=self.key)["KeyMetadata"]["KeyState"]
        except self._errors as error:
            if _code(error) == "NotFoundException":
                return
            raise self._failed(error) from None
        if state == "PendingDeletion":
            raise ConfigurationError(
                "the deletion of the KMS key can still be cancelled",
                hint="try again when its waiting period is over",
            )
        raise ConfigurationError(
            f"the KMS key {self.key} still opens it",
            hint="when nothing else is sealed under the key, schedule its deletion in AWS KMS",
        )

    def _ask(self, operation: str, place: str, **arguments: Any) -> tuple[Mapping[str, Any], bytes]:
        """One call, whose secret comes back encrypted to a key of this call."""
        private = rsa.generate_private_key(65537, RSA_BITS)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        document = self._recipient.recipient_document(public)
        try:
            answer = getattr(self._client, operation)(
                KeyId=self.key,
                EncryptionContext={CONTEXT: place},
                Recipient={
                    "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                    "AttestationDocument": document,
                },
                **arguments,
            )
        except self._errors as error:
            raise self._failed(error) from None
        if answer.get("Plaintext"):
            raise ConfigurationError(
                "AWS KMS answered in the clear, which is not accepted",
                hint="what answers does not know attested recipients: look at --unseal-option kms-endpoint",
            )
        if answer.get("KeyId") != self.key:
            raise ConfigurationError(
                "AWS KMS answered with another key", hint="look at --unseal-option kms-key"
            )
        try:
            return answer, open_enveloped(answer.get("CiphertextForRecipient") or b"", private)
        except OpenError:
            raise UnavailableError("AWS KMS did not encrypt its answer to this enclave") from None

    def _failed(self, error: Exception) -> Exception:
        """Our error for one of the client's. Its message can hold ARNs and is left out."""
        code = _code(error)
        if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
            return changed(self.provider)
        if code in _BUSY or not code:
            return UnavailableError(
                f"AWS KMS does not answer ({code or type(error).__name__})",
                hint="look at the network, the credentials' source and --unseal-option kms-endpoint",
                retryable=True,
            )
        return ConfigurationError(
            f"AWS KMS refuses ({code})", hint=_HINTS.get(code, "look at the key and its policy")
        )


def _code(error: Exception) -> str:
    """The service's own code; empty if it did not answer."""
    response: Mapping[str, Mapping[str, str]] = getattr(error, "response", None) or {}
    return response.get("Error", {}).get("Code", "")


def _client(settings: KmsSettings, *, region: str) -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        import boto3  # noqa: PLC0415 (the extra `aws`, and slow)
        from botocore.config import Config  # noqa: PLC0415 (as above)
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (as above)
    except ImportError:
        raise ConfigurationError(
            "the AWS SDK is not installed", hint="pip install 'cloister-host[aws]'"
        ) from None
    client = boto3.client(
        "kms",
        region_name=region,
        endpoint_url=settings.endpoint or None,
        config=Config(
            connect_timeout=settings.timeout_seconds,
            read_timeout=settings.timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
        ),
    )
    return client, (BotoCoreError, ClientError)
