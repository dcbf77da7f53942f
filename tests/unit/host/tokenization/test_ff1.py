"""FF1 against the published vectors, a second implementation, and itself."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import ffx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError
from cloister_host.tokenization.ff1 import FF1

VECTORS = Path(__file__).parents[3] / "vectors" / "tokenization"
DIGITS = "0123456789"
KEY = bytes(range(32))
COLUMN = 600  # values: enough for the column arithmetic at every length it is used for
# Symbols of one, two and four bytes in UTF-8, without the surrogates.
SYMBOLS = "".join(map(chr, [*range(0x20, 0xD800), *range(0x1F300, 0x1F300 + 20_000)]))


def _load(name: str) -> Any:
    path = VECTORS / name
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


@pytest.mark.parametrize("count", [1, COLUMN])
@pytest.mark.parametrize("name", ["nist_sp800_38g_samples.json", "acvp_ff1_part.json"])
def test_nist_vectors_hold_in_both_directions(name: str, count: int) -> None:
    for vector in _load(name):
        cipher = FF1(bytes.fromhex(vector["key"]), vector["alphabet"])
        tweak = bytes.fromhex(vector["tweak"])
        assert cipher.encrypt([vector["pt"]] * count, tweak) == [vector["ct"]] * count
        assert cipher.decrypt([vector["ct"]] * count, [tweak] * count) == [vector["pt"]] * count


@pytest.mark.parametrize("name", ["base16", "radix26", "radix36"])
def test_wycheproof_vectors_hold_in_both_directions(name: str) -> None:
    document = _load(f"aes_ff1_{name}_test.json.gz")
    checked = 0
    for group in document["testGroups"]:
        alphabet = group.get("alphabet") or "0123456789abcdefghijklmnopqrstuvwxyz"[: group["radix"]]

        def text(numerals: str | list[int], alphabet: str = alphabet) -> str:
            if isinstance(numerals, str):
                return numerals
            return "".join(alphabet[n] if 0 <= n < len(alphabet) else "_" for n in numerals)

        for test in group["tests"]:
            key, tweak = bytes.fromhex(test["key"]), bytes.fromhex(test["tweak"])
            message, cipher_text = text(test["msg"]), text(test["ct"])
            if test["result"] == "invalid":
                with pytest.raises(ConfigurationError):
                    FF1(key, alphabet, unsafe_small_domain=True).encrypt([message], tweak)
            else:
                cipher = FF1(key, alphabet, unsafe_small_domain=True)
                assert cipher.encrypt([message], tweak) == [cipher_text]
                assert cipher.decrypt([cipher_text], tweak) == [message]
                if test["tcId"] % 5 == 0:
                    count = 16 * (1 + len(message) // 6)
                    assert cipher.encrypt([message] * count, tweak) == [cipher_text] * count
            checked += 1
    assert checked == document["numberOfTests"]


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, list[str]]:
    radix = draw(
        st.one_of(
            st.integers(2, 64),
            st.sampled_from([2**8, 2**16 - 1, 2**16, 65521, 1625, 1626, 9, 10, 16]),
            st.integers(2, 2**16),
        )
    )
    alphabet = SYMBOLS[:radix]
    shortest = FF1(KEY, alphabet).min_length
    length = draw(st.integers(shortest, shortest + draw(st.sampled_from([2, 12, 60, 300]))))
    numerals = st.lists(st.integers(0, radix - 1), min_size=length, max_size=length)
    extremes = st.sampled_from([alphabet[0] * length, alphabet[-1] * length])
    value = st.one_of(extremes, numerals.map(lambda ns: "".join(alphabet[n] for n in ns)))
    return alphabet, draw(st.lists(value, min_size=1, max_size=3))


@settings(max_examples=150, deadline=None)
@given(column=columns(), tweak=st.binary(max_size=40), key_bytes=st.sampled_from([16, 24, 32]))
@example(column=(SYMBOLS[: 2**16], [SYMBOLS[2**16 - 1] * 8]), tweak=b"", key_bytes=16)
def test_one_value_and_a_column_agree_with_libffx_at_every_length_and_radix(
    column: tuple[str, list[str]], tweak: bytes, key_bytes: int
) -> None:
    alphabet, values = column
    cipher, peer = FF1(KEY[:key_bytes], alphabet), ffx.FF1(KEY[:key_bytes], alphabet=alphabet)
    expected = [peer.encrypt(value, tweak=tweak) for value in values]
    assert cipher.encrypt(values, tweak) == expected
    assert cipher.decrypt(expected, tweak) == values
    many = -(-COLUMN // len(values))
    assert cipher.encrypt(values * many, tweak) == expected * many
    assert cipher.decrypt(expected * many, [tweak] * len(values) * many) == values * many


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(DIGITS, min_size=6, max_size=40), st.binary(max_size=20)),
        min_size=1,
        max_size=200,
    )
)
def test_mixed_lengths_and_tweaks_keep_their_order(rows: list[tuple[str, bytes]]) -> None:
    values, tweaks = [value for value, _ in rows], [tweak for _, tweak in rows]
    cipher = FF1(KEY, DIGITS)
    tokens = cipher.encrypt(values, tweaks)
    assert tokens == [cipher.encrypt([value], tweak)[0] for value, tweak in rows]
    assert cipher.decrypt(tokens, tweaks) == values


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("foreign", ["x", "\u0663", "\U0001f600", "\ud800", "\uffff", "_", " "])
def test_a_symbol_outside_the_alphabet_is_refused_without_showing_the_value(foreign: str, count: int) -> None:
    for alphabet in (DIGITS, DIGITS + "\u4e2d"):
        values = [*["123456789"] * count, f"12345678{foreign}"]
        with pytest.raises(ConfigurationError, match=f"value {count} has a symbol") as caught:
            FF1(KEY, alphabet).encrypt(values)
        assert "12345678" not in str(caught.value)


@pytest.mark.parametrize(
    ("alphabet", "length"), [(DIGITS, 5), ("01", 19), ("0123456789abcdef", 4), (SYMBOLS[:1000], 1)]
)
def test_a_domain_under_a_million_is_refused(alphabet: str, length: int) -> None:
    cipher = FF1(KEY, alphabet)
    with pytest.raises(ConfigurationError, match="domain of a million"):
        cipher.encrypt([alphabet[0] * length])
    assert cipher.decrypt(cipher.encrypt([alphabet[0] * (length + 1)])) == [alphabet[0] * (length + 1)]


@pytest.mark.parametrize("alphabet", ["", "0", "0120", "01\ud800", SYMBOLS[: 2**16 + 1]])
def test_an_unusable_alphabet_is_refused(alphabet: str) -> None:
    with pytest.raises(ConfigurationError, match="alphabet"):
        FF1(KEY, alphabet)


@pytest.mark.parametrize("length", [0, 15, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError, match="16, 24 or 32"):
        FF1(bytes(length), DIGITS)


def test_a_missing_tweak_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tweak"):
        FF1(KEY, DIGITS).encrypt(["123456", "234567"], [b"1"])


def test_an_empty_batch_is_an_empty_batch() -> None:
    assert FF1(KEY, DIGITS).encrypt([]) == FF1(KEY, DIGITS).decrypt([], []) == []


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.text(max_size=30), max_size=40), tweak=st.binary(max_size=8))
def test_hostile_values_raise_only_our_errors(values: list[str], tweak: bytes) -> None:
    try:
        FF1(KEY, DIGITS).encrypt(values, tweak)
    except CloisterError as error:
        assert "outside the alphabet" in str(error) or "domain" in str(error)  # noqa: PT017 - both are right


def test_one_cipher_serves_threads_at_once() -> None:
    cipher = FF1(KEY, DIGITS)
    values = [f"{n:09}" for n in range(2000)]
    expected = cipher.encrypt(values)
    results: list[bool] = []

    def work() -> None:
        results.extend(cipher.encrypt(values) == expected for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


def test_key_and_alphabet_stay_out_of_repr() -> None:
    assert repr(FF1(KEY, DIGITS)) == "FF1(radix=10)"
