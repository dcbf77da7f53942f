"""What AWS KMS encrypts to an enclave, in every form of BER that it may take, and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import OpenError
from cloister_host.unseal.cms import MAX_BYTES, open_enveloped
from support.kms_doubles import enveloped, tlv

KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key()
SECRET = bytes(range(32))
GOOD = enveloped(SECRET, PUBLIC, pieces=16)


@pytest.mark.parametrize("indefinite", [True, False])
@pytest.mark.parametrize("pieces", [0, 1, 16, 1024])
def test_every_form_of_it_opens(indefinite: bool, pieces: int) -> None:
    made = enveloped(SECRET, PUBLIC, indefinite=indefinite, pieces=pieces)
    assert open_enveloped(made, KEY) == SECRET


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(OpenError):
        open_enveloped(GOOD, rsa.generate_private_key(65537, 2048))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("kind", bytes.fromhex("2a864886f70d010701")),  # data
        ("kind", bytes.fromhex("2a864886f70d010702")),  # signed data
        ("version", b"\x00"),
        ("algorithm", bytes.fromhex("2a864886f70d010101")),  # RSAES-PKCS1-v1_5
        ("cipher", bytes.fromhex("60864801650304010 2".replace(" ", ""))),  # AES-128-CBC
        ("content_kind", bytes.fromhex("2a864886f70d010703")),
        ("key", b""),
        ("key", bytes(256)),
        ("iv", b""),
        ("iv", bytes(12)),
    ],
)
def test_another_algorithm_or_shape_is_refused(part: str, value: bytes) -> None:
    with pytest.raises(OpenError):
        open_enveloped(enveloped(SECRET, PUBLIC, **{part: value}), KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "made",
    [
        b"",
        b"\x30",
        GOOD + b"\0",
        GOOD[:-1],
        GOOD[:-2],
        b"\x30\x80" * 4000,
        b"\xa0\x80" * 5,
        b"\x1f\x80\x00",
        b"\x04\x80\0\0",
        b"\x30\x84\x00\x00\x00\x00",
        b"\x30\x80" + b"\x02\x00" * 200 + b"\0\0",
        bytes(MAX_BYTES + 1),
        tlv(0x30, GOOD),
    ],
)
def test_what_is_none_is_refused(made: bytes) -> None:
    with pytest.raises(OpenError):
        open_enveloped(made, KEY)


@given(made=st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(made: bytes) -> None:
    with pytest.raises(OpenError):
        open_enveloped(made, KEY)


@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_open_to_nothing_or_raise_our_error(position: int, value: int, cut: bool) -> None:
    changed = GOOD[:position] + bytes([value]) + (b"" if cut else GOOD[position + 1 :])
    with suppress(OpenError):  # CBC does not authenticate: what it holds is checked where it is used
        open_enveloped(changed, KEY)
