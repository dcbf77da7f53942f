"""Key management services of three clouds, as far as their real clients ask for them: over TLS, on loopback.

moto has AWS KMS without attested recipients, and there are no emulators of the other two.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cloister.attestation import Format, authenticate
from cloister.errors import EvidenceError
from support.https import Answered, HttpsServer, Received, https_server

__all__ = ["AwsDouble", "AzureDouble", "GoogleDouble", "aws", "azure", "enveloped", "google"]

AWS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GOOGLE_KEY = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k"
_OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def answered(status: int, body: Any, **headers: str) -> Answered:
    return Answered(
        status=status,
        headers={"content-type": "application/json", **headers},
        body=json.dumps(body).encode(),
    )


# --- AWS ---------------------------------------------------------------------------------------------


def tlv(tag: int, content: bytes, *, indefinite: bool = False) -> bytes:
    if indefinite and tag & 0x20:
        return bytes([tag, 0x80]) + content + b"\0\0"
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def enveloped(
    plaintext: bytes,
    public_key: rsa.RSAPublicKey,
    *,
    indefinite: bool = True,
    pieces: int = 0,
    **change: bytes,
) -> bytes:
    """CMS EnvelopedData as AWS KMS writes it; `change` replaces one of its parts."""
    cek, iv = os.urandom(32), os.urandom(16)
    padder = block_padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(cek), modes.CBC(iv)).encryptor()
    content = encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()
    parts = {
        "kind": bytes.fromhex("2a864886f70d010703"),
        "version": b"\x02",
        "algorithm": bytes.fromhex("2a864886f70d010107"),
        "cipher": bytes.fromhex("60864801650304012a"),
        "content_kind": bytes.fromhex("2a864886f70d010701"),
        "key": public_key.encrypt(cek, _OAEP),
        "iv": iv,
    } | change
    recipient = tlv(
        0x30,
        tlv(0x02, b"\x02")
        + tlv(0x80, os.urandom(20))
        + tlv(0x30, tlv(0x06, parts["algorithm"]) + tlv(0x30, b""))
        + tlv(0x04, parts["key"]),
    )
    if pieces:
        chunks = [content[start : start + pieces] for start in range(0, len(content), pieces)]
        sealed = tlv(0xA0, b"".join(tlv(0x04, chunk) for chunk in chunks), indefinite=indefinite)
    else:
        sealed = tlv(0x80, content)
    inner = (
        tlv(0x02, parts["version"])
        + tlv(0x31, recipient)
        + tlv(
            0x30,
            tlv(0x06, parts["content_kind"])
            + tlv(0x30, tlv(0x06, parts["cipher"]) + tlv(0x04, parts["iv"]))
            + sealed,
            indefinite=indefinite,
        )
    )
    outer = tlv(0xA0, tlv(0x30, inner, indefinite=indefinite), indefinite=indefinite)
    return tlv(0x30, tlv(0x06, parts["kind"]) + outer, indefinite=indefinite)


@dataclass
class AwsDouble:
    """AWS KMS with one key, whose policy names a PCR of the enclave.

    Attributes:
        trust_anchor: Root of the attestation documents it believes.
        at: The time at which it believes them.
        pcr0: What PCR 0 has to be.
        state: Of the key; empty once it is gone.
        failing: Errors to answer with first, by `__type`.
        answer: Changes an answer before it is sent.
    """

    server: HttpsServer
    trust_anchor: bytes
    at: datetime
    pcr0: bytes
    state: str = "Enabled"
    failing: list[str] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found
    asked: list[dict[str, Any]] = field(default_factory=list)
    key: bytes = field(default_factory=lambda: os.urandom(32))
    name: str = AWS_KEY

    def __call__(self, received: Received) -> Answered:
        assert received.headers["authorization"].startswith("AWS4-HMAC-SHA256")
        operation = received.headers["x-amz-target"].removeprefix("TrentService.")
        request = {"Operation": operation, **json.loads(received.body)}
        self.asked.append(request)
        try:
            return answered(200, self.answer(self._answer(operation, request)))
        except _AwsError as error:
            status = 500 if error.code.startswith("KMSInternal") else 400
            return answered(status, {"__type": error.code, "message": f"no: {self.name}"})

    def _answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.failing:
            raise _AwsError(self.failing.pop(0))
        if not self.state or request["KeyId"] != self.name:
            raise _AwsError("NotFoundException")
        if operation == "DescribeKey":
            return {"KeyMetadata": {"KeyId": self.name.rpartition("/")[2], "KeyState": self.state}}
        if self.state == "PendingDeletion":
            raise _AwsError("KMSInvalidStateException")
        context = json.dumps(request["EncryptionContext"], sort_keys=True).encode()
        if operation == "GenerateDataKey":
            assert request["KeySpec"] == "AES_256"
            plaintext, nonce = os.urandom(32), os.urandom(12)
            blob = nonce + AESGCM(self.key).encrypt(nonce, plaintext, context)
            return {"KeyId": self.name, "CiphertextBlob": b64(blob), **self._released(request, plaintext)}
        assert operation == "Decrypt"
        blob = base64.b64decode(request["CiphertextBlob"])
        try:
            plaintext = AESGCM(self.key).decrypt(blob[:12], blob[12:], context)
        except (InvalidTag, ValueError):
            raise _AwsError("InvalidCiphertextException") from None
        return {"KeyId": self.name, **self._released(request, plaintext)}

    def _released(self, request: dict[str, Any], plaintext: bytes) -> dict[str, Any]:
        """What the policy of the key lets out: nothing to whom it does not know, nothing in the clear."""
        recipient = request.get("Recipient")
        if recipient is None:
            raise _AwsError("AccessDeniedException")  # the policy asks for an attested recipient
        assert recipient["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
        try:
            evidence = authenticate(
                base64.b64decode(recipient["AttestationDocument"]),
                format=Format.NITRO,
                at=self.at,
                trust_anchors=[self.trust_anchor],
            )
        except EvidenceError:
            raise _AwsError("ValidationException") from None
        if evidence.claims["pcr0"] != self.pcr0.hex():
            raise _AwsError("AccessDeniedException")
        document = _public_key(base64.b64decode(recipient["AttestationDocument"]))
        public = load_der_public_key(document)
        assert isinstance(public, rsa.RSAPublicKey)
        return {"CiphertextForRecipient": b64(enveloped(plaintext, public, pieces=1024))}


def _public_key(document: bytes) -> bytes:
    import cbor2

    found = cbor2.loads(cbor2.loads(document)[2])["public_key"]
    if not isinstance(found, bytes):
        raise _AwsError("ValidationException")
    return found


class _AwsError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def aws(
    folder: Path, patch: pytest.MonkeyPatch, *, trust_anchor: bytes, at: datetime, pcr0: bytes
) -> Iterator[AwsDouble]:
    """Serve AWS KMS; the environment gives the real client credentials and this server's authority."""
    with https_server("localhost") as server:
        (folder / "aws.pem").write_bytes(server.trust_anchor)
        patch.setenv("AWS_CA_BUNDLE", str(folder / "aws.pem"))
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        double = AwsDouble(server=server, trust_anchor=trust_anchor, at=at, pcr0=pcr0)
        server.answer = double
        yield double


# --- Google Cloud ------------------------------------------------------------------------------------


@dataclass
class GoogleDouble:
    """Cloud KMS with one key, and the token service that a workload identity is exchanged at.

    Attributes:
        failing: Statuses to answer with first.
        answer: Changes an answer before it is sent.
        state: Of the version that wraps.
    """

    server: HttpsServer
    failing: list[tuple[int, str]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found
    state: str = "ENABLED"
    asked: list[dict[str, Any]] = field(default_factory=list)
    exchanged: list[str] = field(default_factory=list)
    key: bytes = field(default_factory=lambda: os.urandom(32))

    def __call__(self, received: Received) -> Answered:
        path = received.path.split("?", maxsplit=1)[0]
        if path == "/token":
            self.exchanged.append(received.body.decode())
            token = {"access_token": "federated", "expires_in": 3600, "token_type": "Bearer"}
            return answered(
                200, {**token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
            )
        assert received.headers["authorization"] == "Bearer federated"
        if self.failing:
            status, name = self.failing.pop(0)
            return answered(status, {"error": {"code": status, "status": name, "message": "no"}})
        name, _, operation = path.removeprefix("/v1/").partition(":")
        if not name.startswith(GOOGLE_KEY):
            return answered(404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "no key"}})
        if not operation:
            return answered(200, {"name": name, "state": self.state})
        request = json.loads(received.body)
        self.asked.append({"operation": operation, **request})
        return self._answer(name, operation, request)

    def _answer(self, name: str, operation: str, request: dict[str, Any]) -> Answered:
        aad = base64.b64decode(request["additionalAuthenticatedData"])
        if operation == "encrypt":
            nonce = os.urandom(12)
            sealed = nonce + AESGCM(self.key).encrypt(nonce, base64.b64decode(request["plaintext"]), aad)
            found = {
                "name": f"{name}/cryptoKeyVersions/1",
                "ciphertext": b64(sealed),
                "ciphertextCrc32c": str(google_crc32c.value(sealed)),
                "verifiedPlaintextCrc32c": "plaintextCrc32c" in request,
                "verifiedAdditionalAuthenticatedDataCrc32c": "additionalAuthenticatedDataCrc32c" in request,
            }
            return answered(200, self.answer(found))
        sealed = base64.b64decode(request["ciphertext"])
        if self.state != "ENABLED":
            error = {"code": 400, "status": "FAILED_PRECONDITION", "message": "not enabled"}
            return answered(400, {"error": error})
        try:
            plaintext = AESGCM(self.key).decrypt(sealed[:12], sealed[12:], aad)
        except (InvalidTag, ValueError):
            error = {"code": 400, "status": "INVALID_ARGUMENT", "message": "Decryption failed"}
            return answered(400, {"error": error})
        found = {"plaintext": b64(plaintext), "plaintextCrc32c": str(google_crc32c.value(plaintext))}
        return answered(200, self.answer(found))


@contextmanager
def google(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[GoogleDouble]:
    """Serve Cloud KMS; the environment gives the real client a workload identity and this authority."""
    with https_server("localhost") as server:
        url = f"https://localhost:{server.port}"
        (folder / "google.pem").write_bytes(server.trust_anchor)
        (folder / "attestation.jwt").write_text("an attestation token")
        configuration = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{url}/token",
            "credential_source": {"file": str(folder / "attestation.jwt")},
        }
        (folder / "identity.json").write_text(json.dumps(configuration))
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "identity.json"))
        patch.setenv("GOOGLE_CLOUD_PROJECT", "p")
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "google.pem"))
        double = GoogleDouble(server=server)
        server.answer = double
        yield double


# --- Azure -------------------------------------------------------------------------------------------


@dataclass
class AzureDouble:
    """Key Vault with one RSA key, and the endpoint that a managed identity gets its tokens from.

    Attributes:
        failing: Statuses to answer with first.
        answer: Changes an answer before it is sent.
        state: `enabled`, `deleted` (it can be recovered) or `purged`.
    """

    server: HttpsServer
    failing: list[int] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found
    state: str = "enabled"
    bits: int = 2048
    tokens: int = 0
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.private = rsa.generate_private_key(65537, self.bits)
        self.vault = f"https://vault.localhost:{self.server.port}"
        self.kid = f"{self.vault}/keys/root/0123456789abcdef"

    def __call__(self, received: Received) -> Answered:
        path = received.path.split("?", maxsplit=1)[0]
        if path == "/msi/token":
            assert received.headers["x-identity-header"] == "managed"
            self.tokens += 1
            expires = int(datetime.now(UTC).timestamp()) + 3600
            token = {"access_token": "managed-token", "expires_on": str(expires), "token_type": "Bearer"}
            return answered(200, token)
        if received.headers.get("authorization") != "Bearer managed-token":
            challenge = (
                'Bearer authorization="https://login.microsoftonline.com/tenant", '
                f'resource="https://localhost:{self.server.port}"'
            )
            return answered(401, {}, **{"www-authenticate": challenge})
        self.asked.append(path)
        if self.failing:
            status = self.failing.pop(0)
            return answered(status, {"error": {"code": "No", "message": "no"}})
        kind, name, *rest = path.strip("/").split("/")
        if name != "root":
            return self._missing()
        if kind == "deletedkeys":
            return answered(200, self._bundle()) if self.state == "deleted" else self._missing()
        if self.state != "enabled":
            return self._missing()
        if received.method == "GET":
            return answered(200, self._bundle())
        request = json.loads(received.body)
        assert request["alg"] == "RSA-OAEP-256"
        value = base64.urlsafe_b64decode(request["value"] + "==")
        try:
            done = (
                self.private.public_key().encrypt(value, _OAEP)
                if rest[-1] == "wrapkey"
                else self.private.decrypt(value, _OAEP)
            )
        except ValueError:
            return answered(400, {"error": {"code": "BadParameter", "message": "no"}})
        return answered(200, self.answer({"kid": self.kid, "value": _unpadded(done)}))

    def _missing(self) -> Answered:
        return answered(404, {"error": {"code": "KeyNotFound", "message": "no key"}})

    def _bundle(self) -> dict[str, Any]:
        numbers = self.private.public_key().public_numbers()
        return {
            "key": {
                "kid": self.kid,
                "kty": "RSA-HSM",
                "key_ops": ["wrapKey", "unwrapKey"],
                "n": _unpadded(numbers.n.to_bytes(self.bits // 8, "big")),
                "e": "AQAB",
            },
            "attributes": {"enabled": True, "created": int(time.time())},
        }


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def azure(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[AzureDouble]:
    """Serve Key Vault; the environment gives the real client a managed identity and this authority."""
    import socket

    resolve = socket.getaddrinfo

    def local(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == "vault.localhost" else host, *arguments, **named)

    with https_server("vault.localhost", "localhost") as server:
        (folder / "azure.pem").write_bytes(server.trust_anchor)
        patch.setattr(socket, "getaddrinfo", local)
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "azure.pem"))
        patch.setenv("IDENTITY_ENDPOINT", f"https://localhost:{server.port}/msi/token")
        patch.setenv("IDENTITY_HEADER", "managed")
        double = AzureDouble(server=server)
        server.answer = double
        yield double
