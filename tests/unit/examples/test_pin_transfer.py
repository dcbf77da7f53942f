"""The PIN transfer as a plain function: what it passes on and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import pin_transfer as module
from cloister.function.bundle import build_bundle
from cloister.function.manifest import Need
from pin_transfer import AccountNotUsable, PinNotUsable, PinTransfer, pin_transfer


@pytest.mark.parametrize("pin", ["0000", "4711", "123456789012"])
def test_a_pin_is_passed_on_for_tokenization(pin: str) -> None:
    assert pin_transfer(pin, "ACC-7") == PinTransfer(account="ACC-7", token=pin)


@pytest.mark.parametrize(
    "pin", ["", "123", "1234567890123", "12a4", "12 34", "1234\n", "\u0661\u0662\u0663\u0664"]
)
def test_what_is_no_pin_is_refused_and_not_shown(pin: str) -> None:
    with pytest.raises(PinNotUsable) as refusal:
        pin_transfer(pin, "ACC-7")
    assert refusal.value.args == ()


@pytest.mark.parametrize("account", ["", "-7", "ACC 7", "A" * 33, "ACC-7\n", "../7"])
def test_what_is_no_account_is_refused(account: str) -> None:
    with pytest.raises(AccountNotUsable):
        pin_transfer("4711", account)


def test_a_result_does_not_print_its_pin() -> None:
    assert "4711" not in repr(pin_transfer("4711", "ACC-7"))


def test_the_bundle_may_open_pins_tokenize_them_and_deliver_and_nothing_else() -> None:
    manifest = build_bundle(Path(module.__file__).parent, {"CARD_APP": "https://cards.example"}).manifest
    assert manifest.output.to_manifest()["fields"]["token"] == {"class": "token", "policy": "pins"}
    assert manifest.output_context == frozenset()
    assert set(manifest.needs) == {
        Need("use-in-function", "key/pins"),
        Need("tokenize", "policy/pins"),
        Need("deliver", "origin/https://cards.example"),
    }
