"""A host that is killed at random points of PIN transfers: every PIN arrives, once, with its proof."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from cloister import Client, jose
from cloister.errors import UnavailableError
from cloister.function.bundle import build_bundle
from cloister.receipts import Receipt
from cloister.receipts.bundle import bundle, verify_bundle
from support.host_process import HostProcess, client, policy_of
from support.https import Answered, HttpsServer, Received, https_server
from support.waiting import until

FUNCTION = Path(__file__).parents[3] / "examples" / "pin_transfer" / "function"
AHEAD_SECONDS = 130
"""After this long the claims and leases of a host that died have lapsed."""
TRANSFERS = int(os.environ.get("CLOISTER_FAULT_TRANSFERS", "10000"))
POLICY = policy_of("image-1")


class Partner:
    """The card application: has each delivery once, however often it is told, and not always at once."""

    def __init__(self, server: HttpsServer) -> None:
        self.effects: dict[str, Mapping[str, Any]] = {}
        self.sendings = 0
        self._lock = threading.Lock()
        self._server = server
        server.answer = self.answer

    def answer(self, received: Received) -> Answered:
        body = json.loads(received.body)
        with self._lock:
            self.sendings += 1
            moods = (Answered(status=503), Answered(raw=b""), Answered(raw=b"\x00garbage\r\n\r\n"))
            if self.sendings % 7 == 3:
                # It fails before it has done anything, it resets, or it speaks something else.
                return moods[self.sendings % len(moods)]
            self.effects.setdefault(received.headers["idempotency-key"], body["payload"])
            if self.sendings % 7 == 5:
                return Answered(raw=b"")  # it has done it, and nobody hears of that
        return Answered(body=b"{}")


class Bank:
    """A deployment with the PIN transfer on it, and who takes part."""

    def __init__(self, folder: Path, server: HttpsServer, stack: ExitStack) -> None:
        anchor = folder / "anchor.pem"
        anchor.write_bytes(server.trust_anchor)
        self.host = HostProcess(folder, trust_anchor=anchor)
        key = self.host.initialize()
        stack.callback(self.host.stop)
        self.host.start()
        with client(self.host.url, key) as operator:
            admin_key = operator.call("tenant.create", {"tenant": "bank"})["api_key"]
        self._keys = {"admin": admin_key}
        self.admin = self._client(stack, "admin")
        self.admin.call("key.create", {"key": "pins", "purpose": "seal"})
        self.admin.call("policy.create", {"policy": "pins", "plan": "vault", "type": "pin"})
        built = build_bundle(FUNCTION, {"CARD_APP": f"https://localhost:{server.port}"})
        deployed = self.admin.call(
            "function.deploy", {"bundle": jose.b64url_encode(built.data), "alias": "prod"}
        )
        for need in deployed["needs"]:
            self.admin.call("grant.create", {"principal": f"function:{deployed['digest']}", **need})
        rights = [("seal", "key/pins"), ("detokenize", "policy/pins")]
        self._keys["keypad"] = self.key("keypad", "person", *rights)
        self.keypad = self._client(stack, "keypad")
        self.lambda_key = self.key("pin-lambda", "faas", ("invoke", "function/pin-transfer"))
        for action, resource in (("delivery.manage", "delivery/*"), ("audit.read", "audit/*")):
            self.admin.call("grant.create", {"principal": "admin", "action": action, "resource": resource})

    def key(self, name: str, kind: str, *rights: tuple[str, str]) -> str:
        key: str = self.admin.call("principal.create", {"principal": name, "kind": kind})["api_key"]
        for action, resource in rights:
            self.admin.call("grant.create", {"principal": name, "action": action, "resource": resource})
        return key

    def sign_in(self, stack: ExitStack) -> None:
        """Anew, with the clock as it is now."""
        self.admin, self.keypad = self._client(stack, "admin"), self._client(stack, "keypad")

    def _client(self, stack: ExitStack, name: str) -> Client:
        return stack.enter_context(client(self.host.url, self._keys[name], tenant="bank"))


def transfer(bank: Bank, account: str, sealed: Any) -> Any:
    """One transfer; the same account again is the same transfer."""
    with client(bank.host.url, bank.lambda_key, tenant="bank") as function:
        return function.invoke(
            "pin-transfer@prod",
            pin=sealed,
            account=account,
            context={"account": account},
            idempotency_key=account,
        )


def transfers_under_fire(
    bank: Bank, sealed: Mapping[str, Any], *, kills: int, clients: int = 3
) -> dict[str, Any]:
    """Every transfer once, from several clients, while the host is killed; gives what was answered."""
    replies: dict[str, Any] = {}
    waiting, lock = list(sealed), threading.Lock()
    begun = threading.Semaphore(0)

    def run() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                account = waiting.pop()
            begun.release()
            # How it ended may stay unknown; it is asked again when the claim of a dead host lapses.
            with suppress(UnavailableError):
                replies[account] = transfer(bank, account, sealed[account])

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    between = max(1, len(sealed) // (kills + 1))
    for _ in range(kills):
        for _ in range(between):
            begun.acquire(timeout=60)
        time.sleep(random.uniform(0.0, 0.1))  # anywhere in a transfer
        bank.host.kill()
        bank.host.start()
    for thread in threads:
        thread.join()
    return replies


def verified(bank: Bank, admin: Client, receipt: Receipt) -> None:
    """The receipt holds, offline, with its place in the log."""
    claims = receipt.unverified_claims
    evidence = admin.call("receipt.evidence", {"keyset": claims["keyset"], "at": claims["iat"]})["evidence"]
    found: list[Any] = []

    def placed() -> bool:
        try:
            found.append(admin.call("receipt.proof", {"receipt": receipt.id}))
        except UnavailableError:
            return False
        return True

    until(placed)
    assert verify_bundle(bundle(receipt, evidence=evidence, log=found[0]), POLICY).claims["tenant"] == "bank"


def run_transfers(
    folder: Path, server: HttpsServer, monkeypatch: pytest.MonkeyPatch, *, transfers: int, kills: int
) -> None:
    partner, now = Partner(server), time.time
    pins = {f"ACC-{number}": f"{random.randrange(10**6):06}" for number in range(transfers)}
    with ExitStack() as stack:
        bank = Bank(folder, server, stack)
        sealed = {
            account: bank.keypad.seal(pin, key="pins", context={"account": account})
            for account, pin in pins.items()
        }
        replies = transfers_under_fire(bank, sealed, kills=kills)
        # Everybody's clock: the claims and leases of hosts that died lapse.
        bank.host.move_clock(AHEAD_SECONDS)
        monkeypatch.setattr(time, "time", lambda: now() + AHEAD_SECONDS)
        bank.sign_in(stack)
        for account in pins.keys() - replies.keys():
            replies[account] = transfer(bank, account, sealed[account])
        until(lambda: len(partner.effects) == transfers, seconds=180)
        deliveries = _pages(bank.admin, "delivery.list", "deliveries")
        until(
            lambda: all(d["state"] == "delivered" for d in _pages(bank.admin, "delivery.list", "deliveries"))
        )
        # Nothing lost, nothing twice: as many deliveries as transfers, each with the token that was answered.
        assert len(deliveries) == transfers
        arrived = {payload["account"]: payload["token"] for payload in partner.effects.values()}
        assert arrived == {account: reply.value["token"] for account, reply in replies.items()}
        assert len(set(arrived.values())) == transfers
        # The vault knows each as the PIN it was.
        accounts = sorted(pins)
        opened = bank.keypad.detokenize("pins", [arrived[account] for account in accounts])
        assert opened == [pins[account] for account in accounts]
        # The log: one invocation done for each, and every receipt is in it.
        done = [
            entry
            for entry in _pages(bank.admin, "audit.list", "entries")
            if entry["act"] == "function.invoke" and entry["outcome"] == "done"
        ]
        assert len(done) == transfers
        for reply in random.sample(
            sorted(replies.values(), key=lambda reply: reply.receipt.id), min(25, transfers)
        ):
            verified(bank, bank.admin, reply.receipt)


def _pages(admin: Client, op: str, member: str) -> list[Mapping[str, Any]]:
    found, after = [], ""
    while True:
        page = admin.call(op, {"after": after, "limit": 1000})
        found += page[member]
        if not page["next"]:
            return found
        after = page["next"]


def test_transfers_survive_a_host_that_is_killed(
    tmp_path: Path, partner: HttpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_transfers(tmp_path, partner, monkeypatch, transfers=40, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_transfers_survive_a_host_that_is_killed_again_and_again(
    tmp_path: Path, partner: HttpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_transfers(tmp_path, partner, monkeypatch, transfers=TRANSFERS, kills=TRANSFERS // 200)


@pytest.fixture
def partner() -> Iterator[HttpsServer]:
    with https_server("localhost") as server:
        yield server
