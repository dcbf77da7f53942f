"""The vectors, recomputed from SPEC.md with nothing of the product but what is being checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import OpenError
from cloister.objects import FileSource, ObjectReader, open_stream
from cloister.secret import Secret

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "objects" / "objects.json").read_text())
OPENING = VECTORS["open"]
REFUSED = VECTORS["refused"]


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def hkdf(hash_name, ikm, salt, info, length):
    prk = hmac.digest(salt, ikm, hash_name)
    okm, block, counter = b"", b"", 1
    while len(okm) < length:
        block = hmac.digest(prk, block + info + bytes([counter]), hash_name)
        okm, counter = okm + block, counter + 1
    return okm[:length]


def seal_by_the_specification(vector):
    cek, content, header = unb64(vector["cek"]), unb64(vector["content"]), json.loads(vector["header"])
    text = vector["header"].encode()
    start = bytes.fromhex("636c6f626a00010a") + len(text).to_bytes(4, "big") + text
    okm = hkdf("sha512", cek, unb64(header["salt"]), b"cloister.object.v1", 71)
    assert unb64(header["commitment"]) == okm[32:64]
    if vector["context"] is not None:
        key = hkdf("sha256", cek, bytes(32), b"cloister.ctx.v1", 32)
        text = json.dumps(vector["context"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert unb64(header["ctx"]) == hmac.digest(key, text.encode(), "sha256")[:16]
    else:
        assert "ctx" not in header
    size = header["frame_bytes"]
    frames = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
    sealed = [start]
    for index, frame in enumerate(frames):
        last = b"\x01" if index == len(frames) - 1 else b"\x00"
        nonce = okm[64:] + index.to_bytes(4, "big") + last
        aad = hashlib.sha256(start).digest() + index.to_bytes(8, "big")
        sealed.append(AESGCM(okm[:32]).encrypt(nonce, frame, aad))
    return b"".join(sealed)


def opened(vector):
    sink = io.BytesIO()
    recover = lambda _header: Secret(unb64(vector["cek"]))  # noqa: E731 (one line says it)
    open_stream(io.BytesIO(unb64(vector["object"])), sink, recover, context=vector["context"])
    with ObjectReader(
        FileSource(io.BytesIO(unb64(vector["object"]))), recover, context=vector["context"]
    ) as reader:
        assert reader.readall() == sink.getvalue()
    return sink.getvalue()


@pytest.mark.parametrize("vector", OPENING, ids=lambda vector: vector["name"])
def test_an_object_follows_from_its_inputs(vector):
    assert seal_by_the_specification(vector) == unb64(vector["object"])


@pytest.mark.parametrize("vector", OPENING, ids=lambda vector: vector["name"])
def test_an_object_opens(vector):
    assert opened(vector) == unb64(vector["content"])


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector["name"])
def test_an_object_that_must_not_open_does_not(vector):
    recover = lambda _header: Secret(unb64(vector["cek"]))  # noqa: E731 (one line says it)
    raw = unb64(vector["object"])
    with pytest.raises(OpenError):
        open_stream(io.BytesIO(raw), io.BytesIO(), recover, context=vector["context"])
    with pytest.raises(OpenError):
        ObjectReader(FileSource(io.BytesIO(raw)), recover, context=vector["context"]).readall()
