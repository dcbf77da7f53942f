"""PIN blocks and terminal keys against the published vectors, and what a bad block gives away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import ConfigurationError, OpenError
from cloister.function import dukpt, pinblock
from cloister.function.pinblock import PinFormat, Zone
from cloister.secret import Secret

VECTORS = Path(__file__).parents[3] / "vectors" / "tokenization"
PAN = "5555555551234567"
FORMATS: list[PinFormat] = [0, 3, 4]
KEYS: dict[PinFormat, Secret] = {
    0: Secret(bytes(range(16))),
    3: Secret(bytes(range(24))),
    4: Secret(bytes(32)),
}
pins = st.text("0123456789", min_size=4, max_size=12)


def _load(name: str) -> Any:
    return json.loads((VECTORS / name).read_bytes())


@pytest.mark.parametrize("vector", _load("pinblock_iso0.json")["accept"])
def test_format_0_vectors_hold_in_both_directions(vector: dict[str, Any]) -> None:
    block = bytes.fromhex(vector["block"])
    assert pinblock.decode(block, pan=vector["pan"], format=0) == vector["pin"]
    assert pinblock.encode(vector["pin"], pan=vector["pan"], format=0) == block


@pytest.mark.parametrize("vector", _load("pinblock_iso0.json")["reject"], ids=lambda vector: vector["why"])
def test_format_0_refuses(vector: dict[str, Any]) -> None:
    with pytest.raises(OpenError):
        pinblock.decode(bytes.fromhex(vector["block"]), pan=vector["pan"], format=0)


@pytest.mark.parametrize("vector", _load("pinblock_iso4.json")["accept"])
def test_format_4_vectors_hold(vector: dict[str, Any]) -> None:
    zone = Zone(format=4, key=Secret(bytes.fromhex(vector["key"])))
    assert pinblock.decipher(bytes.fromhex(vector["block"]), pan=vector["pan"], zone=zone) == vector["pin"]


def test_the_format_4_field_of_the_terminal_standard_decodes() -> None:
    example = _load("dukpt_aes128.json")["pin_block_example"]
    field = bytes.fromhex(example["plain_pin_field"])
    assert pinblock.decode(field, pan=example["pan"], format=4) == example["pin"]


def test_terminal_keys_match_the_standard_and_open_its_pin_blocks() -> None:
    vectors = _load("dukpt_aes128.json")
    base_key = Secret(bytes.fromhex(vectors["bdk"]))
    initial = dukpt.initial_key(base_key, initial_key_id=bytes.fromhex(vectors["initial_key_id"]))
    assert initial.reveal().hex().upper() == vectors["initial_key"]
    usages: dict[str, dukpt.Usage] = {
        "pin_key_aes128": "pin",
        "cmac_aes128_key": "mac-generation",
        "data_aes128_key": "data-encrypt",
    }
    example = vectors["pin_block_example"]
    for vector in vectors["first_eight"]:
        ksn = bytes.fromhex(vector["ksn"])
        for name, usage in usages.items():
            key = dukpt.working_key(base_key, ksn=ksn, usage=usage, key_bits=128)
            assert key.reveal().hex().upper() == vector[name]
        zone = Zone(format=4, key=dukpt.working_key(base_key, ksn=ksn, usage="pin", key_bits=128))
        block = bytes.fromhex(vector["encrypted_pinblock"])
        assert pinblock.decipher(block, pan=example["pan"], zone=zone) == example["pin"]


def test_transaction_keys_match_the_standard_at_every_listed_counter() -> None:
    vectors = _load("dukpt_aes128.json")
    base_key = Secret(bytes.fromhex(vectors["bdk"]))
    groups = [vectors[name] for name in ("first_eight", "counters_1fffe_20000_20001", "last_four")]
    for vector in [vector for group in groups for vector in group]:
        ksn = bytes.fromhex(vector["ksn"])
        key = dukpt._transaction_key(base_key, ksn[:8], int.from_bytes(ksn[8:], "big"))
        assert key.reveal().hex().upper() == vector["txn_key"]


@pytest.mark.parametrize(
    "changed",
    [
        {"ksn": bytes(11)},
        {"ksn": bytes(12)},
        {"ksn": b"\xff" * 12},
        {"usage": "other"},
        {"key_bits": 256},
        {"key_bits": 64},
        {"base_key": Secret(bytes(15))},
    ],
    ids=repr,
)
def test_a_terminal_key_is_refused_with_another(changed: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "base_key": Secret(bytes(16)),
        "ksn": bytes(11) + b"\1",
        "usage": "pin",
        "key_bits": 128,
    }
    assert len(dukpt.working_key(**good)) == 16
    with pytest.raises(ConfigurationError):
        dukpt.working_key(**{**good, **changed})


@given(pin=pins, pin_format=st.sampled_from(FORMATS))
def test_what_is_enciphered_deciphers_for_the_same_account_only(pin: str, pin_format: PinFormat) -> None:
    zone = Zone(format=pin_format, key=KEYS[pin_format])
    block = pinblock.encipher(pin, pan=PAN, zone=zone)
    assert len(block) == (16 if pin_format == 4 else 8)
    assert pinblock.decipher(block, pan=PAN, zone=zone) == pin
    try:
        other = pinblock.decipher(block, pan="5555555559876543", zone=zone)
    except OpenError:
        return
    # Formats 0 and 3 detect another account only by what it does to the digits.
    assert pin_format != 4
    assert other != pin


@pytest.mark.parametrize("pin_format", [3, 4])
def test_fill_is_drawn_anew_for_every_block(pin_format: PinFormat) -> None:
    zone = Zone(format=pin_format, key=KEYS[pin_format])
    assert len({pinblock.encipher("1234", pan=PAN, zone=zone) for _ in range(20)}) == 20


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_a_block_is_translated_between_zones(source: PinFormat, target: PinFormat) -> None:
    here, there = Zone(format=source, key=KEYS[source]), Zone(format=target, key=KEYS[target])
    block = pinblock.encipher("123456", pan=PAN, zone=here)
    moved = pinblock.translate(block, pan=PAN, source=here, target=there)
    assert pinblock.decipher(moved, pan=PAN, zone=there) == "123456"


@pytest.mark.parametrize(
    ("pin_format", "field"),
    [
        (4, "341234AAAAAAAAAA0000000000000000"),
        (4, "431234AAAAAAAAAA0000000000000000"),
        (4, "4D1234567890123A0000000000000000"),
        (4, "44123AAAAAAAAAAA0000000000000000"),
        (4, "441234AAAAAAAAAF0000000000000000"),
        (4, "441234AAAAAAAAAA00000000000000"),
        (3, "341234FFFFFFFFF0"),
        (3, "041234FFFFFFFFFF"),
        (0, "041234FFFFFFFFFA"),
        (0, "0412A4FFFFFFFFFF"),
    ],
)
def test_every_flaw_of_a_block_gives_the_same_error_without_its_digits(
    pin_format: PinFormat, field: str
) -> None:
    raw = bytes.fromhex(field)
    account = bytes(raw) if pin_format == 4 else bytes.fromhex("0000" + PAN[-13:-1])
    block = raw if pin_format == 4 else bytes(a ^ b for a, b in zip(raw, account, strict=True))
    with pytest.raises(OpenError) as caught:
        pinblock.decode(block, pan=PAN, format=pin_format)
    assert str(caught.value) == "the PIN block did not open"


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12a4", "\uff11\uff12\uff13\uff14", "12 4"])
@pytest.mark.parametrize("pin_format", FORMATS)
def test_what_is_no_pin_is_refused_without_showing_it(pin_format: PinFormat, pin: str) -> None:
    with pytest.raises(ConfigurationError, match="4 to 12 digits") as caught:
        pinblock.encode(pin, pan=PAN, format=pin_format)
    assert not pin or pin not in str(caught.value)


@pytest.mark.parametrize("pan", ["", "5555", "5" * 20, "555555555123456x"])
def test_what_is_no_account_number_is_refused_without_showing_it(pan: str) -> None:
    with pytest.raises(ConfigurationError, match="account number") as caught:
        pinblock.encode("1234", pan=pan, format=0)
    assert not pan or pan not in str(caught.value)


def test_format_4_takes_short_account_numbers() -> None:
    zone = Zone(format=4, key=KEYS[4])
    assert (
        pinblock.decipher(pinblock.encipher("1234", pan="5555", zone=zone), pan="5555", zone=zone) == "1234"
    )


@pytest.mark.parametrize(
    ("pin_format", "length"), [(0, 8), (0, 32), (3, 15), (4, 8), (4, 0), (1, 16), (2, 16)]
)
def test_a_zone_is_refused_with_another_key_or_format(pin_format: int, length: int) -> None:
    with pytest.raises(ConfigurationError):
        Zone(format=cast("PinFormat", pin_format), key=Secret(bytes(length)))


@given(block=st.binary(max_size=20), pin_format=st.sampled_from(FORMATS), pan=st.text(max_size=20))
def test_hostile_blocks_raise_only_our_errors(block: bytes, pin_format: PinFormat, pan: str) -> None:
    for account in (pan, PAN):
        try:
            pin = pinblock.decipher(block, pan=account, zone=Zone(format=pin_format, key=KEYS[pin_format]))
        except (OpenError, ConfigurationError):
            continue
        assert 4 <= len(pin) <= 12
