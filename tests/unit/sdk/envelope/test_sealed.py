"""`Sealed` is text with a shape."""

import copy
import json
import pickle

import pytest

from cloister.envelope import DataKey, Dek, Sealed, open_with, open_with_cek, seal_many_to, seal_to
from cloister.errors import ConfigurationError, OpenError
from cloister.jose import Alg, b64url_encode, encrypt_compact, generate_key
from cloister.secret import Secret

KEY = generate_key("HPKE-7-KE", kid="docs.12")
SEALED = seal_to({"a": 1}, KEY.public(), kid="docs.12", context={"account": "1"})


def test_it_tells_what_its_header_tells() -> None:
    sealed = Sealed(str(SEALED))
    assert (sealed.kid, sealed.key, sealed.version) == ("docs.12", "docs", 12)
    assert (sealed.alg, sealed.cty, sealed.has_context) == ("HPKE-7-KE", "json", True)
    assert not seal_to(b"", KEY, kid="docs.12").has_context


def test_it_is_text_everywhere_but_in_its_repr() -> None:
    text = str(SEALED)
    assert text == SEALED
    assert hash(text) == hash(SEALED)
    assert type(text) is str
    assert json.dumps([SEALED]) == json.dumps([text])
    assert repr(SEALED) == f"Sealed('docs.12', json, {len(SEALED)} characters)"


def test_it_survives_pickling_and_copying() -> None:
    for clone in (pickle.loads(pickle.dumps(SEALED)), copy.deepcopy(SEALED), copy.copy(SEALED)):
        assert type(clone) is Sealed
        assert clone == SEALED


@pytest.mark.parametrize(
    "text", ["", "078-05-1120", "....", "a.b.c.d.e", "e30....", "\u00e9....", "e30.." + "x" * 99]
)
def test_other_text_is_no_sealed_value_and_the_error_does_not_quote_it(text: str) -> None:
    with pytest.raises(OpenError) as refused:
        Sealed(text)
    assert not text or text not in str(refused.value)


def test_a_request_is_no_value() -> None:
    request = encrypt_compact(b"{}", KEY, typ="cloister-request+jwe", cty="json")
    with pytest.raises(OpenError, match="typ"):
        Sealed(request)


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "HPKE-7-KE"])
def test_a_batch_shares_one_encapsulation(alg: Alg) -> None:
    key = generate_key(alg, kid="docs.1")
    contexts = [None, {}, {"a": "1"}]
    batch = seal_many_to(["x", b"y", [1]], key.public(), kid="docs.1", contexts=contexts)
    assert len({sealed.encrypted_key for sealed in batch}) == 1
    assert [open_with(s, key, c) for s, c in zip(batch, contexts, strict=True)] == ["x", b"y", [1]]
    assert seal_to("x", key, kid="docs.1").encrypted_key != seal_to("x", key, kid="docs.1").encrypted_key
    assert seal_many_to([], key, kid="docs.1") == []


def test_as_many_contexts_as_values_are_needed() -> None:
    with pytest.raises(ConfigurationError, match="as many"):
        seal_many_to(["x", "y"], KEY, kid="docs.12", contexts=[None])


@pytest.mark.parametrize("kid", ["docs.13", "docs", "", "docs.0", "Docs.12", "docs.12\n"])
def test_a_kid_other_than_the_keys_is_refused(kid: str) -> None:
    with pytest.raises(ConfigurationError, match="kid"):
        seal_to("x", KEY, kid=kid)


def test_a_symmetric_key_is_no_public_key() -> None:
    with pytest.raises(ConfigurationError, match="no public key"):
        seal_to("x", generate_key("A256KW"), kid="docs.12")


def test_a_public_half_opens_nothing_and_says_why() -> None:
    with pytest.raises(ConfigurationError, match="public half"):
        open_with(SEALED, KEY.public(), {"account": "1"})


def test_another_private_key_does_not_open() -> None:
    with pytest.raises(OpenError):
        open_with(SEALED, generate_key("HPKE-7-KE", kid="docs.12"), {"account": "1"})
    with pytest.raises(OpenError):
        open_with(SEALED, generate_key("HPKE-10-KE", kid="docs.12"), {"account": "1"})


def test_a_content_key_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        open_with_cek(SEALED, bytes(31))
    with pytest.raises(ConfigurationError, match="32 bytes"):
        open_with_cek(SEALED, bytes(16))


HEADER = {"alg": "A256KW", "enc": "A256GCM", "kid": "ssn.1", "typ": "cloister-value+jwe", "cty": "text"}
REST = [b64url_encode(bytes(40)), b64url_encode(bytes(12)), "AAAA", b64url_encode(bytes(16))]


def _text(**change: object) -> str:
    header = {name: value for name, value in (HEADER | change).items() if value is not ...}
    return ".".join([b64url_encode(json.dumps(header).encode()), *REST])


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "dir"},
        {"alg": "HPKE-7-KE"},
        {"ek": "AAAA"},
        {"kid": ...},
        {"kid": "ssn"},
        {"kid": "ssn.1\n"},
        {"cty": "application/json"},
        {"cty": ...},
        {"typ": "JWE"},
        {"ctx": None},
        {"ctx": 7},
        {"ctx": ""},
        {"ctx": "A" * 23},
        {"ctx": "A" * 21 + "="},
    ],
    ids=str,
)
def test_a_header_of_no_value_is_refused_without_a_key(change: dict[str, object]) -> None:
    assert Sealed(_text()).kid == "ssn.1"
    with pytest.raises(OpenError, match="not a sealed value"):
        Sealed(_text(**change))


def test_a_wrapped_key_of_another_length_is_refused_without_a_key() -> None:
    protected = _text().split(".")[0]
    for size in (0, 39, 41, 48):
        with pytest.raises(OpenError, match="encrypted key"):
            Sealed(".".join([protected, b64url_encode(bytes(size)), *REST[1:]]))


def test_text_outside_ascii_or_too_long_is_refused_without_a_key() -> None:
    for text in (_text() + "\u00e9", _text() + "A" * (64 * 1024 * 1024)):
        with pytest.raises(OpenError, match="ASCII, at most"):
            Sealed(text)


def test_the_border_between_two_parts_cannot_be_moved() -> None:
    """The IV and ciphertext are read in one go, and ciphertext and tag are joined: neither shows where."""
    cek = bytes(range(32))
    dek = Dek(DataKey(kid="ssn.1", dek=Secret(cek), encrypted_key=bytes(40)), now=0)
    protected, key, iv, ciphertext, tag = dek.seal(bytes(12)).split(".")
    good = (iv, ciphertext, tag)
    assert open_with_cek(".".join((protected, key, *good)), cek) == bytes(12)
    for moved in (
        (iv + ciphertext[:4], ciphertext[4:], tag),
        (iv[:-4], iv[-4:] + ciphertext, tag),
        (iv, ciphertext + tag[:4], tag[4:]),
        (iv, ciphertext[:-4], ciphertext[-4:] + tag),
    ):
        assert "".join(moved) == "".join(good)
        with pytest.raises(OpenError):
            open_with_cek(".".join((protected, key, *moved)), cek)


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "EdDSA", "A256KW"])
def test_a_key_of_another_alg_is_not_tried_though_it_has_the_right_kid(alg: Alg) -> None:
    other = generate_key(alg, kid="docs.12")
    with pytest.raises(OpenError):
        open_with(SEALED, other if alg == "A256KW" else other.public(), {"account": "1"})
