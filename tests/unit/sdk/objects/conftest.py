"""An object key, and objects made with it."""

from __future__ import annotations

import io
import os

import pytest

from cloister.objects import MIN_FRAME_BYTES, ObjectKey, seal_stream
from cloister.secret import Secret


class Sealing:
    """Seals under one key in small frames."""

    def __init__(self) -> None:
        self.key = ObjectKey(
            alg="A256KW", kid="documents.1", encrypted_key=os.urandom(40), cek=Secret(os.urandom(32))
        )

    def seal(self, content: bytes, **options) -> bytes:
        sink = io.BytesIO()
        seal_stream(io.BytesIO(content), sink, self.key, frame_bytes=MIN_FRAME_BYTES, **options)
        return sink.getvalue()

    def recover(self, _header) -> Secret:
        return self.key.cek


@pytest.fixture
def sealing():
    return Sealing()
