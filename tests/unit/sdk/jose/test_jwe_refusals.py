"""Each case changes one thing of a token that opens."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError, OpenError
from cloister.jose import (
    Alg,
    Key,
    b64url_encode,
    decrypt_compact,
    encrypt_compact,
    generate_key,
    parse_compact,
    unwrap_key,
    wrap_key,
)
from cloister.secret import Secret

KEY = generate_key("A256KW", kid="k.1")
TOKEN = encrypt_compact(b"content", KEY, typ="t")
HEADER: dict[str, Any] = {"alg": "A256KW", "enc": "A256GCM", "kid": "k.1", "typ": "t"}


def _with_header(raw: bytes) -> str:
    return ".".join([b64url_encode(raw), *TOKEN.split(".")[1:]])


def _with_part(index: int, change: Callable[[str], str]) -> str:
    parts = TOKEN.split(".")
    parts[index] = change(parts[index])
    return ".".join(parts)


def test_the_good_case_opens() -> None:
    assert decrypt_compact(TOKEN, KEY, typ="t") == b"content"
    assert _with_header(json.dumps(HEADER, separators=(",", ":")).encode()) == TOKEN


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "A128KW"},
        {"alg": "none"},
        {"alg": "RSA-OAEP"},
        {"alg": "HPKE-0-KE"},
        {"alg": "HPKE-10"},
        {"alg": "a256kw"},
        {"alg": None},
        {"alg": ["A256KW"]},
        {"enc": "A128GCM"},
        {"enc": "A256CBC-HS512"},
        {"enc": None},
        {"zip": "DEF"},
        {"zip": ""},
        {"crit": []},
        {"crit": ["exp"]},
        {"psk_id": "x"},
        {"kid": 7},
        {"typ": 7},
        {"cty": {}},
        {"ek": 7},
    ],
    ids=json.dumps,
)
def test_a_header_member_outside_the_profile_is_refused_without_a_key(change: dict[str, Any]) -> None:
    with pytest.raises(OpenError, match="not a JWE of this profile"):
        parse_compact(_with_header(json.dumps(HEADER | change).encode()))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"alg":"A256KW","enc":"A256GCM","enc":"A256GCM"}',
        b'{"alg":"A256KW","enc":"A256GCM","x":{"a":1,"a":2}}',
        b'{"alg":"A256KW","enc":"A256GCM","x":NaN}',
        b'{"alg":"A256KW","enc":"A256GCM",}',
        b'{"alg":"A256KW","enc":"A256GCM"} {}',
        b'\xef\xbb\xbf{"alg":"A256KW","enc":"A256GCM"}',
        b'{"alg":"A256KW","enc":"A256GCM","x":"\xff"}',
        b'{"alg":"A256KW","enc":"A256GCM","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"alg":"A256KW","enc":"A256GCM","x":' + b"9" * 5000 + b"}",
        b'["A256KW","A256GCM"]',
        b"null",
        b"",
    ],
    ids=range(12),
)
def test_a_header_that_is_not_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(OpenError, match="not a JWE of this profile"):
        parse_compact(_with_header(raw))


def test_a_header_that_is_too_long_is_refused() -> None:
    with pytest.raises(OpenError, match="too long"):
        parse_compact(_with_header(json.dumps(HEADER | {"x": "x" * 8192}).encode()))
    with pytest.raises(ConfigurationError, match="too long"):
        encrypt_compact(b"", KEY, headers={"x": "x" * 8192})


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    "change",
    [
        lambda part: part + "=",
        lambda part: part + "\n",
        lambda part: " " + part,
        lambda part: part[:-1] + "+",
        lambda part: part[:-1] + "/",
        lambda part: part[:-1] + "\u00e9",
        lambda part: part + "A" * (5 - len(part) % 4),
    ],
    ids=["padding", "newline", "space", "plus", "slash", "non-ascii", "impossible length"],
)
def test_lax_base64_is_refused_in_every_part(index: int, change: Callable[[str], str]) -> None:
    with pytest.raises(OpenError):
        decrypt_compact(_with_part(index, change), KEY, typ="t")


@pytest.mark.parametrize("index", [3, 4])
def test_a_dangling_bit_is_refused(index: int) -> None:
    """The last character holds unused bits: several texts would otherwise be one token."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def with_next_character(part: str) -> str:
        return part[:-1] + alphabet[alphabet.index(part[-1]) + 1]

    with pytest.raises(OpenError, match="base64url"):
        parse_compact(_with_part(index, with_next_character))


@pytest.mark.parametrize("index", range(5))
def test_a_changed_byte_does_not_open_in_any_part(index: int) -> None:
    def flip(part: str) -> str:
        return ("B" if part[0] == "A" else "A") + part[1:]

    with pytest.raises(OpenError):
        decrypt_compact(_with_part(index, flip), KEY, typ="t")


@pytest.mark.parametrize("parts", [1, 4, 6], ids=str)
def test_other_serializations_are_refused(parts: int) -> None:
    with pytest.raises(OpenError, match="five parts"):
        parse_compact(".".join((TOKEN + ".A").split(".")[:parts]))


def test_the_json_serialization_with_several_recipients_is_refused() -> None:
    with pytest.raises(OpenError):
        parse_compact('{"protected":"e30","recipients":[{},{}],"iv":"A","ciphertext":"A","tag":"A"}')


@pytest.mark.parametrize("index", [2, 4])
def test_an_iv_or_tag_of_another_length_is_refused(index: int) -> None:
    with pytest.raises(OpenError, match="12-byte IV"):
        parse_compact(_with_part(index, lambda _: b64url_encode(bytes(11))))
    with pytest.raises(OpenError, match="12-byte IV"):
        parse_compact(_with_part(index, lambda _: ""))


def test_a_token_longer_than_asked_for_is_refused() -> None:
    assert parse_compact(TOKEN, max_chars=len(TOKEN)).header == HEADER
    with pytest.raises(OpenError):
        parse_compact(TOKEN, max_chars=len(TOKEN) - 1)


@pytest.mark.parametrize("typ", [None, "", "T", "t+jwe"])
def test_another_typ_is_refused(typ: str | None) -> None:
    with pytest.raises(OpenError, match="typ"):
        decrypt_compact(TOKEN, KEY, typ=typ)


def test_a_missing_typ_is_refused_where_one_is_expected() -> None:
    with pytest.raises(OpenError, match="typ"):
        decrypt_compact(encrypt_compact(b"content", KEY), KEY, typ="t")


def test_a_key_with_another_kid_is_refused_though_it_is_the_same_key() -> None:
    other = Key.from_jwk(KEY.to_jwk() | {"kid": "k.2"})
    with pytest.raises(OpenError):
        decrypt_compact(TOKEN, other, typ="t")


def test_the_same_bytes_under_another_alg_do_not_open() -> None:
    """`dir` with the wrapping key, and `A256KW` with the content key."""
    jwk = KEY.to_jwk()
    with pytest.raises(OpenError):
        decrypt_compact(TOKEN, Key.from_jwk(jwk | {"alg": "dir"}), typ="t")
    with pytest.raises(OpenError):
        decrypt_compact(encrypt_compact(b"content", Key.from_jwk(jwk | {"alg": "dir"})), KEY)


def test_a_header_that_names_another_alg_than_the_keys_does_not_open() -> None:
    """Everything else about this token is right for the key."""
    jwe = parse_compact(TOKEN)
    cek = unwrap_key(jwe.encrypted_key, KEY).reveal()
    protected = b64url_encode(b'{"alg":"dir","enc":"A256GCM"}')
    sealed = AESGCM(cek).encrypt(jwe.iv, b"content", protected.encode())
    parts = (jwe.encrypted_key, jwe.iv, sealed[:-16], sealed[-16:])
    with pytest.raises(OpenError):
        decrypt_compact(".".join((protected, *map(b64url_encode, parts))), KEY)


def test_dir_refuses_an_encrypted_key() -> None:
    key = generate_key("dir")
    header, _, *rest = encrypt_compact(b"content", key).split(".")
    with pytest.raises(OpenError):
        decrypt_compact(".".join([header, b64url_encode(bytes(40)), *rest]), key)


@pytest.mark.parametrize("alg", ["A256KW", "dir"])
def test_ek_is_refused_where_nothing_is_encapsulated(alg: Alg) -> None:
    key = generate_key(alg)
    jwe = parse_compact(encrypt_compact(b"content", key))
    jwe.header["ek"] = "AA"
    with pytest.raises(OpenError):
        decrypt_compact(jwe, key)


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "HPKE-7-KE"])
@pytest.mark.parametrize("ek", [None, "", "AA", b64url_encode(bytes(1120)), b64url_encode(b"\4" + bytes(64))])
def test_hpke_refuses_an_encapsulation_that_is_missing_or_worthless(alg: Alg, ek: str | None) -> None:
    key = generate_key(alg)
    jwe = parse_compact(encrypt_compact(b"content", key))
    jwe.header["ek"] = ek
    with pytest.raises(OpenError):
        decrypt_compact(jwe, key)


@pytest.mark.parametrize("name", ["alg", "enc", "kid", "typ", "cty", "ek", "zip", "crit", "psk_id"])
def test_extra_headers_cannot_name_a_reserved_member(name: str) -> None:
    with pytest.raises(ConfigurationError, match="reserved"):
        encrypt_compact(b"content", KEY, headers={name: "x"})


def test_a_public_half_does_not_open_and_says_why() -> None:
    key = generate_key("HPKE-10-KE")
    with pytest.raises(ConfigurationError, match="public half"):
        decrypt_compact(encrypt_compact(b"content", key), key.public())


@pytest.mark.parametrize("alg", ["A256KW", "dir"])
def test_info_is_never_silently_ignored(alg: Alg) -> None:
    key = generate_key(alg)
    with pytest.raises(ConfigurationError, match="info"):
        encrypt_compact(b"content", key, info=b"x")
    with pytest.raises(ConfigurationError, match="info"):
        decrypt_compact(encrypt_compact(b"content", key), key, info=b"x")


def test_a_signature_key_does_not_encrypt() -> None:
    with pytest.raises(ConfigurationError, match="does not encrypt"):
        encrypt_compact(b"content", generate_key("ES256"))


def test_only_a_key_wrapping_key_wraps_and_only_a_full_key() -> None:
    with pytest.raises(ConfigurationError):
        wrap_key(Secret(bytes(32)), generate_key("dir"))
    with pytest.raises(ConfigurationError):
        wrap_key(Secret(bytes(16)), KEY)
    with pytest.raises(OpenError):
        unwrap_key(wrap_key(Secret(bytes(32)), KEY)[:-8], KEY)


def test_every_token_has_its_own_iv_and_key() -> None:
    seen = [parse_compact(encrypt_compact(b"content", KEY)) for _ in range(50)]
    assert len({jwe.iv for jwe in seen}) == len({jwe.encrypted_key for jwe in seen}) == 50
