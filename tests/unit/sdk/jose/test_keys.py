"""JWKs: what is a key of this profile, and what only looks like one."""

import copy
import pickle
from typing import Any, get_args

import pytest

from cloister.errors import ConfigurationError
from cloister.jose import Alg, Key, b64url_decode, b64url_encode, generate_key, public_jwk, thumbprint

ALGS: tuple[Alg, ...] = get_args(Alg)
PRIVATE = {"A256KW": "k", "dir": "k", "HPKE-10-KE": "priv", "ML-DSA-65": "priv"}
KEYS = {alg: generate_key(alg, kid="k.1").to_jwk() for alg in ALGS}


def _changed(alg: Alg, /, **members: Any) -> dict[str, Any]:
    return {name: value for name, value in (KEYS[alg] | members).items() if value is not ...}


@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize(
    "value", [..., None, "", "A128KW", "none", "HPKE-0-KE", "ES512", 7, ["A256KW"]], ids=str
)
def test_alg_is_required_and_one_of_ours(alg: Alg, value: object) -> None:
    with pytest.raises(ConfigurationError, match="alg is missing or not supported"):
        Key.from_jwk(_changed(alg, alg=value))


@pytest.mark.parametrize("alg", ALGS)
def test_a_key_of_another_type_is_refused_for_every_alg(alg: Alg) -> None:
    for other in ALGS:
        if KEYS[other]["kty"] == KEYS[alg]["kty"] and KEYS[other].get("crv") == KEYS[alg].get("crv"):
            continue
        with pytest.raises(ConfigurationError):
            Key.from_jwk(_changed(alg, alg=other))


@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize("kty", [..., None, "RSA", "oKp"], ids=str)
def test_the_key_type_must_be_named(alg: Alg, kty: object) -> None:
    with pytest.raises(ConfigurationError, match="needs kty"):
        Key.from_jwk(_changed(alg, kty=kty))


@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize("kid", ["", 7, "k" * 257])
def test_a_kid_is_short_text(alg: Alg, kid: object) -> None:
    with pytest.raises(ConfigurationError, match="kid"):
        Key.from_jwk(_changed(alg, kid=kid))


@pytest.mark.parametrize("alg", ALGS)
def test_every_member_must_be_canonical_and_of_its_length(alg: Alg) -> None:
    for name in {"k", "x", "y", "d", "pub", "priv"} & set(KEYS[alg]):
        good = KEYS[alg][name]
        for bad in (
            ...,
            None,
            7,
            "",
            good + "=",
            good + "A",
            good[:-2],
            "+" + good[1:],
            b64url_encode(bytes(31)),
        ):
            if name in {"d", "priv"} and bad is ...:
                continue  # then it is a public key
            with pytest.raises(ConfigurationError) as refused:
                Key.from_jwk(_changed(alg, **{name: bad}))
            assert good not in str(refused.value)


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "HPKE-7-KE", "EdDSA", "ES256", "ES384", "ML-DSA-65"])
def test_a_private_half_of_another_key_is_refused(alg: Alg) -> None:
    name = PRIVATE.get(alg, "d")
    with pytest.raises(ConfigurationError, match="does not belong"):
        Key.from_jwk(_changed(alg, **{name: generate_key(alg).to_jwk()[name]}))


@pytest.mark.parametrize("alg", ["A256KW", "dir"])
def test_an_all_zero_key_is_refused(alg: Alg) -> None:
    with pytest.raises(ConfigurationError, match="all zero"):
        Key.from_jwk(_changed(alg, k=b64url_encode(bytes(32))))


@pytest.mark.parametrize("alg", ["HPKE-7-KE", "ES256", "ES384"])
def test_a_point_off_the_curve_or_at_zero_is_refused(alg: Alg) -> None:
    size = len(b64url_decode(KEYS[alg]["x"]))
    with pytest.raises(ConfigurationError, match="not a point"):
        Key.from_jwk(_changed(alg, x=b64url_encode(bytes(size)), y=b64url_encode(bytes(size))))
    with pytest.raises(ConfigurationError, match="not a point"):
        Key.from_jwk(_changed(alg, y=KEYS[alg]["x"]))


@pytest.mark.parametrize("scalar", [bytes(32), b"\xff" * 32])
def test_a_scalar_out_of_range_is_refused(scalar: bytes) -> None:
    with pytest.raises(ConfigurationError, match="out of range"):
        Key.from_jwk(_changed("ES256", d=b64url_encode(scalar)))


def test_a_post_quantum_key_with_a_coefficient_out_of_range_is_refused() -> None:
    """FIPS 203 section 7.2: the modulus check."""
    pub = b64url_decode(KEYS["HPKE-10-KE"]["pub"])
    with pytest.raises(ConfigurationError, match="not an MLKEM768-X25519"):
        Key.from_jwk(_changed("HPKE-10-KE", pub=b64url_encode(b"\xff\xff\xff" + pub[3:]), priv=...))


def test_ed25519_points_of_small_order_are_refused() -> None:
    p = 2**255 - 19
    order_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    d = -121665 * pow(121666, -1, p) % p
    y2 = order_8**2 % p
    x2 = (y2 - 1) * pow(d * y2 + 1, -1, p) % p
    assert (x2 + y2) % p == 0  # twice such a point has y = 0, so it has order 8
    for y in (0, 1, p - 1, p, p + 1, order_8, p - order_8):
        for sign in (0, 1 << 255):
            x = b64url_encode((y | sign).to_bytes(32, "little"))
            with pytest.raises(ConfigurationError, match="small order"):
                Key.from_jwk(_changed("EdDSA", x=x, d=...))


@pytest.mark.parametrize("alg", ALGS)
def test_a_key_published_for_another_use_is_refused(alg: Alg) -> None:
    right, wrong = ("sig", "enc") if alg in {"EdDSA", "ES256", "ES384", "ML-DSA-65"} else ("enc", "sig")
    assert Key.from_jwk(_changed(alg, use=right)).alg == alg
    with pytest.raises(ConfigurationError, match="use"):
        Key.from_jwk(_changed(alg, use=wrong))
    for ops in ([], "sign", ["sign", "wrapKey"], [["sign"]], ["unknown"]):
        with pytest.raises(ConfigurationError, match="key_ops"):
            Key.from_jwk(_changed(alg, key_ops=ops))


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "HPKE-7-KE", "EdDSA", "ES256", "ES384", "ML-DSA-65"])
def test_the_public_half_holds_nothing_private(alg: Alg) -> None:
    public = public_jwk(KEYS[alg])
    assert set(KEYS[alg]) - set(public) == {PRIVATE.get(alg, "d")}
    assert not Key.from_jwk(public).is_private
    assert thumbprint(public) == thumbprint(KEYS[alg])


@pytest.mark.parametrize("alg", ["A256KW", "dir"])
def test_a_symmetric_key_has_neither_public_half_nor_thumbprint(alg: Alg) -> None:
    for act in (public_jwk, thumbprint):
        with pytest.raises(ConfigurationError):
            act(KEYS[alg])


def test_the_thumbprint_of_rfc_8037_appendix_a_3() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("alg", ALGS)
def test_a_key_shows_its_name_only(alg: Alg) -> None:
    key = Key.from_jwk(KEYS[alg])
    for text in (repr(key), str(key), f"{key}", repr(key.operations)):
        assert KEYS[alg][PRIVATE.get(alg, "d")] not in text
    assert repr(key) == f"Key(kid='k.1', alg='{alg}')"
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            act(key)


def test_an_unknown_alg_cannot_be_generated() -> None:
    with pytest.raises(ConfigurationError):
        generate_key("A128KW")  # type: ignore[arg-type]
