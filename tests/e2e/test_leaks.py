"""A full run of the three workflows, and then a hunt for everything that should have stayed inside."""

from __future__ import annotations

import base64
import binascii
import csv
import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from cloister.errors import CloisterError, OpenError
from cloister.secret import Secret
from cloister_host.http.dispatch import Dispatcher
from cloister_host.testing import embedded_host
from local_cloud.breach_service import Fault
from local_cloud.ca import LocalCA
from support import require

EXAMPLES = Path(__file__).parents[2] / "examples"
PIN = "480192736455"
SSNS = ("987-65-4321", "000-12-3456", "666-45-6789")
BALANCES = (1357913, 2468024, 3579135, 4680246, 5791357, 6802468)
SHORTEST_KEY_BYTES = 16
ON_PURPOSE = ("*.key",)  # the files that hold a party's own credential, or the unseal key


def workflow(folder):
    """The `run.py` of an example, under a name of its own."""
    name = f"leaks_{folder}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Heap:
    """Everything that any party outside the host saw or kept, as (where, bytes)."""

    def __init__(self):
        self.pieces = []

    def add(self, where, *pieces):
        self.pieces += [(where, p if isinstance(p, bytes) else str(p).encode()) for p in pieces]

    def add_files(self, folder):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not any(path.match(pattern) for pattern in ON_PURPOSE):
                self.add(path.name, path.read_bytes())

    def holding(self, needle):
        return sorted({where for where, piece in self.pieces if needle in piece})


@pytest.fixture
def secrets(monkeypatch):
    """Every `Secret` that is made in this process: root key, KEKs, DEKs, CEKs, credentials."""
    seen = set()
    original = Secret.__init__

    def recording(self, value):
        original(self, value)
        if len(value) >= SHORTEST_KEY_BYTES:
            seen.add(bytes(value))

    monkeypatch.setattr(Secret, "__init__", recording)
    return seen


@pytest.fixture
def heap(monkeypatch):
    """What travels between clients and host, from both ends; the rest is added by the test."""
    heap = Heap()
    opens, answers = Dispatcher.open, Dispatcher.answer

    def opening(self, token, **options):
        heap.add("request", token)
        try:
            return opens(self, token, **options)
        except CloisterError as error:
            heap.add("error", repr(error), str(error))
            raise

    def answering(self, opened):
        reply = answers(self, opened)
        heap.add("reply", reply)
        return reply

    monkeypatch.setattr(Dispatcher, "open", opening)
    monkeypatch.setattr(Dispatcher, "answer", answering)
    return heap


def forms(secret):
    """How a key may have been written down."""
    plain = base64.b64encode(secret).rstrip(b"=")
    return {
        secret,
        binascii.hexlify(secret),
        binascii.hexlify(secret).upper(),
        plain,
        plain.replace(b"+", b"-").replace(b"/", b"_"),
        repr(secret)[2:-1].encode(),
    }


def forecast_credit(host, heap):
    module = workflow("credit_forecast")
    from history import History, Month

    months = [
        Month(month=f"2005-{number:02}", status=0, balance=balance, payment=balance // 10)
        for number, balance in enumerate(BALANCES, start=4)
    ]
    history = History(currency="TWD", credit_limit=7654321, months=months)
    with module.credit_cloud(host) as parties:
        parties.upload([("ann", history)])
        result = parties.invoke("ann")
        assert result.error is None, result.error
        parties.officer.open(result.payload["forecast"], context={"customer": "ann"})
        with pytest.raises(OpenError) as caught:
            parties.officer.open(result.payload["forecast"], context={"customer": "bob"})
        heap.add("error", repr(caught.value), str(caught.value))
        failed = parties.function.invoke({"bucket": "x", "key": "y", "customer": "ann"})
        heap.add("lambda", result, failed, *parties.function.posts, *parties.function.logs)
        heap.add("s3", parties.stored("ann"))


def check_numbers(host, ca, heap, folder):
    module = workflow("ssn_breach_check")
    with module.breach_cloud(host, ca, repeat_requests=True) as parties:
        members = folder / "members.csv"
        with members.open("w", newline="") as file:
            rows = [(n, "gold", ssn) for n, ssn in enumerate(SSNS, start=1)]
            csv.writer(file).writerows([("member_id", "plan", "ssn"), *rows])
        parties.load(members)
        members.unlink()
        parties.partner.fail_next(Fault.SERVER_ERROR, times=2)
        heap.add("answer", module.find_breached(parties.warehouse, dataset=module.DATASET))
        heap.add("bigquery", *parties.bigquery.requests, parties.query("SELECT * FROM clinic.members"))
        heap.add("endpoint", *parties.endpoint.logs)
        heap.add("partner", *parties.partner.requests)


def transfer_pin(host, ca, heap):
    module = workflow("pin_transfer")
    with module.pin_cloud(host, ca) as parties:
        event = module.transfer_event(parties.keypad, PIN, account="ACC-9")
        result = parties.invoke(event)
        assert result.error is None, result.error
        heap.add("azure blob", parties.wait_until_stored(result.payload["delivery"]))
        broken = parties.invoke({**event, "account": "ACC-8", "transfer": "other"})
        heap.add("lambda", event, result, broken, *parties.function.posts, *parties.function.logs)
        heap.add("azure", *parties.cards.reports, *parties.cards.logs)


def test_no_plaintext_or_key_of_a_full_run_is_anywhere(tmp_path, secrets, heap, capfd, caplog):
    require.azurite()
    require.azure_runtime()
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "host"
    folder.mkdir()
    with (
        LocalCA() as ca,
        embedded_host(
            folder, egress_trust_anchors=[ca.pem_path], egress_allow_private_addresses=True
        ) as host,
    ):
        forecast_credit(host, heap)
        check_numbers(host, ca, heap, tmp_path)
        transfer_pin(host, ca, heap)
        heap.add_files(folder)
    heap.add_files(folder)
    output = capfd.readouterr()
    heap.add("output", output.out, output.err)
    heap.add("log", caplog.text)

    plaintexts = [PIN, *SSNS, *(ssn.replace("-", "") for ssn in SSNS), *map(str, BALANCES), "7654321"]
    found = {text: heap.holding(text.encode()) for text in plaintexts}
    assert not {text: where for text, where in found.items() if where}
    assert len(secrets) > 20
    leaked = [
        (len(secret), where) for secret in secrets for form in forms(secret) if (where := heap.holding(form))
    ]
    assert not leaked
    # The hunt can find: what was meant to be seen was seen, in each of the places.
    places = {where for where, _ in heap.pieces}
    expected = {"request", "reply", "s3", "lambda", "bigquery", "endpoint", "partner", "azure", "azure blob"}
    assert expected <= places
    assert heap.holding(b"cloister")
    assert heap.holding(b"ACC-9")
    assert "cloister.db" in places
