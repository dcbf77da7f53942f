"""SPEC.md and its vectors: a second implementation agrees byte for byte."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from cloister.envelope import DataKey, Dek, Sealed, open_with, open_with_cek
from cloister.errors import OpenError
from cloister.jose import Key, b64url_decode, generate_key, wrap_key
from cloister.secret import Secret

ROOT = Path(__file__).parents[4]
SPEC = (ROOT / "sdk/cloister/envelope/SPEC.md").read_text("utf-8")
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/envelope/values.json").read_bytes())


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _ctx(cek: bytes, context: dict[str, str]) -> str:
    prk = hmac.digest(bytes(32), cek, hashlib.sha256)
    key = hmac.digest(prk, b"cloister.ctx.v1\x01", hashlib.sha256)
    return _b64(hmac.digest(key, rfc8785.dumps(context), hashlib.sha256)[:16])


def _value(vector: dict[str, Any]) -> Any:
    return b64url_decode(vector["value"]) if vector["cty"] == "octets" else vector["value"]


@pytest.mark.parametrize("vector", VECTORS["a256kw"], ids=lambda vector: str(vector["name"]))
def test_a_value_follows_byte_for_byte_from_its_inputs(vector: dict[str, Any]) -> None:
    kek, cek, iv = (b64url_decode(vector[name]) for name in ("kek", "cek", "iv"))
    header = {"alg": "A256KW", "enc": "A256GCM", "kid": vector["kid"], "typ": "cloister-value+jwe"}
    header["cty"] = vector["cty"]
    if vector["context"] is not None:
        header["ctx"] = _ctx(cek, vector["context"])
    raw_header = json.dumps(header, separators=(",", ":"))
    assert raw_header == vector["header"]
    protected = _b64(raw_header.encode())
    sealed = AESGCM(cek).encrypt(iv, b64url_decode(vector["content"]), protected.encode())
    parts = (aes_key_wrap(kek, cek), iv, sealed[:-16], sealed[-16:])
    assert ".".join((protected, *map(_b64, parts))) == vector["sealed"]


@pytest.mark.parametrize(
    "vector", VECTORS["a256kw"] + VECTORS["foreign"], ids=lambda vector: str(vector["name"])
)
def test_a_vector_opens_with_the_wrapping_key_and_with_the_data_key(vector: dict[str, Any]) -> None:
    key = Key.from_jwk({"kty": "oct", "alg": "A256KW", "k": vector["kek"]})
    assert open_with(vector["sealed"], key, vector["context"]) == _value(vector)
    assert open_with_cek(vector["sealed"], b64url_decode(vector["cek"]), vector["context"]) == _value(vector)
    sealed = Sealed(vector["sealed"])
    assert (sealed.kid, sealed.cty, sealed.has_context) == (
        vector["kid"],
        vector["cty"],
        vector["context"] is not None,
    )


@pytest.mark.parametrize("vector", VECTORS["hpke"], ids=lambda vector: str(vector["name"]))
def test_a_vector_opens_with_its_private_key(vector: dict[str, Any]) -> None:
    assert open_with(vector["sealed"], vector["jwk"], vector["context"]) == _value(vector)


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: str(vector["name"]))
def test_a_vector_that_must_not_open_does_not(vector: dict[str, Any]) -> None:
    with pytest.raises(OpenError):
        open_with(vector["sealed"], vector["jwk"], vector["context"])


def test_what_we_seal_now_has_the_header_of_the_vectors() -> None:
    vector = VECTORS["a256kw"][0]
    key = Key.from_jwk({"kty": "oct", "alg": "A256KW", "k": vector["kek"]})
    cek = Secret(b64url_decode(vector["cek"]))
    dek = Dek(DataKey(kid=vector["kid"], dek=cek, encrypted_key=wrap_key(cek, key)), now=0)
    ours, theirs = dek.seal(_value(vector), vector["context"]).split("."), vector["sealed"].split(".")
    assert ours[:2] == theirs[:2]
    assert ours[2:] != theirs[2:]


def test_the_header_shown_in_the_spec_is_one_of_the_vectors() -> None:
    shown = re.findall(r"^\{\"alg\".*\}$", SPEC, re.MULTILINE)
    assert shown
    assert shown[0] in {vector["header"] for vector in VECTORS["a256kw"]}


def _example() -> Callable[[str, bytes, dict[str, str] | None], bytes]:
    """The joserfc example, as printed in SPEC.md."""
    (source,) = re.findall(r"```python\n(.*?)```", SPEC, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, "SPEC.md", "exec"), names)
    open_value: Callable[[str, bytes, dict[str, str] | None], bytes] = names["open_value"]
    return open_value


@pytest.mark.parametrize("context", [None, {}, {"member": "7"}])
def test_the_joserfc_example_opens_our_values(context: dict[str, str] | None) -> None:
    key = generate_key("A256KW", kid="ssn.1")
    kek, cek = b64url_decode(key.to_jwk()["k"]), Secret(bytes(range(32)))
    dek = Dek(DataKey(kid="ssn.1", dek=cek, encrypted_key=wrap_key(cek, key)), now=0)
    sealed = dek.seal("078-05-1120", context)
    open_value = _example()
    assert open_value(sealed, kek, context) == b"078-05-1120"
    for other in (None, {}, {"member": "8"}):
        if other != context:
            with pytest.raises(ValueError, match="context"):
                open_value(sealed, kek, other)
