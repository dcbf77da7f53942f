"""Deliveries to a real HTTPS receiver that verifies them offline, through failures and crashes."""

from __future__ import annotations

import ipaddress
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloister.attestation import AppraisalPolicy
from cloister.errors import ConfigurationError, DeniedError, FunctionError, LimitError
from cloister.function.egress import Delivery
from cloister.protocol import VerifiedDelivery, verify_delivery
from cloister_host.deliveries.dispatcher import Schedule
from cloister_host.egress import EgressSettings
from cloister_host.identity.caller import OPERATOR, SYSTEM_TENANT, Caller
from support.https import Answered, HttpsServer, Received, https_server
from support.workbench import TENANT, Workbench

PIN = """
from dataclasses import dataclass
from typing import Annotated
from cloister.function import deliver, function, record, sealed, text, token

@dataclass
class PinTransfer:
    account: str
    token: str

@function("pin", output=record(account=text(max_chars=8), token=token("pins")),
          deliver=deliver("${CARD_APP}", path="/api/pins"))
def pin(pin: Annotated[str, sealed("pins", context=["account"])], account: str) -> PinTransfer:
    return PinTransfer(account=account, token=pin)
"""


class Receiver(Workbench):
    """A workbench whose function delivers to a server here."""

    def __init__(self, folder: Path, server: HttpsServer) -> None:
        super().__init__(
            folder,
            egress=EgressSettings(trust_anchors=server.trust_anchor, allow_private_addresses=True),
            schedule=Schedule(first_seconds=10, attempts=3),
        )
        self.parts.egress._resolve = lambda host, timeout: [ipaddress.ip_address("127.0.0.1")]
        self.server = server
        self.url = f"https://cards.example:{server.port}"
        self.key("pins")
        self.call("policy.create", {"policy": "pins", "plan": "vault", "alphabet": "digits", "length": 16})
        self.bundle = self.deploy(PIN, settings={"CARD_APP": self.url})

    def transfer(self, account: str = "a1") -> dict[str, Any]:
        result: dict[str, Any] = self.invoke(
            "pin@prod", inputs={"pin": self.seal("pins", "4711", account=account), "account": account}
        )
        return result

    def deliver(self) -> int:
        return self.parts.dispatcher.deliver_due()

    def states(self) -> list[tuple[str, int, str]]:
        listed = self.call("delivery.list", {})["deliveries"]
        return [(item["state"], item["attempts"], item["error"]) for item in listed]

    def outcomes(self) -> list[str]:
        return [entry["outcome"] for entry in self.audit() if entry["act"] == "deliver"]

    def verify(self, received: Received) -> VerifiedDelivery:
        policy = AppraisalPolicy.from_mapping(
            {
                "version": 1,
                "environment": "simulated",
                "deployment": self.keysets.keyset().deployment,
                "tee": {"simulated": {"reference": [{"name": "test", "measurement": "test"}]}},
            }
        )
        return verify_delivery(
            received.body, policy, method="POST", url=f"{self.url}/api/pins", now=self.clock.now
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Receiver]:
    with https_server("cards.example") as server:
        workbench = Receiver(tmp_path, server)
        yield workbench
        workbench.close()


def delivery_id(received: Received) -> str:
    return received.headers["idempotency-key"]


def test_a_result_arrives_with_what_the_caller_got(bench: Receiver) -> None:
    result = bench.transfer()
    assert bench.deliver() == 1
    received = bench.server.received[0]
    assert (received.method, received.path) == ("POST", "/api/pins")
    assert json.loads(received.body)["payload"] == result["value"]
    assert delivery_id(received) == result["delivery_id"]
    assert bench.states() == [("delivered", 1, "")]
    assert bench.outcomes() == ["intent", "done"]


def test_nothing_of_the_input_is_in_what_is_sent(bench: Receiver) -> None:
    bench.transfer()
    bench.deliver()
    assert b"4711" not in json.dumps(json.loads(bench.server.received[0].body)["payload"]).encode()


def test_a_delivered_result_is_not_sent_again(bench: Receiver) -> None:
    bench.transfer()
    bench.deliver()
    bench.clock.now += 10_000
    assert bench.deliver() == 0


def test_a_delivery_of_a_sealed_off_tenant_waits_and_holds_nobody_up(bench: Receiver) -> None:
    bench.transfer()
    with bench.store.begin() as tx:
        tx.seal_off(TENANT, sealed=True)
    assert bench.deliver() == 0
    with bench.store.begin() as tx:
        tx.seal_off(TENANT, sealed=False)
    bench.clock.now += 3600
    assert bench.deliver() == 1
    assert bench.states() == [("delivered", 1, "")]


def test_a_failure_is_tried_again_later_under_the_same_id(bench: Receiver) -> None:
    bench.server.answer = lambda _: Answered(status=500)
    bench.transfer()
    bench.deliver()
    assert bench.states() == [("pending", 1, "status-500")]
    assert bench.deliver() == 0
    bench.server.answer = lambda _: Answered(status=200)
    bench.clock.now += 30
    assert bench.deliver() == 1
    first, second = bench.server.received
    assert delivery_id(first) == delivery_id(second)
    assert bench.states() == [("delivered", 2, "")]
    assert bench.outcomes() == ["intent", "failed", "intent", "done"]


def test_each_sending_is_signed_anew(bench: Receiver) -> None:
    bench.server.answer = lambda _: Answered(status=500)
    bench.transfer()
    bench.deliver()
    bench.clock.now += 30
    bench.deliver()
    first, second = (json.loads(received.body)["cloister"]["delivery"] for received in bench.server.received)
    assert first != second


def test_no_answer_leaves_the_outcome_unknown(bench: Receiver) -> None:
    bench.server.answer = lambda _: Answered(raw=b"")
    bench.transfer()
    bench.deliver()
    assert bench.states() == [("pending", 1, "unavailable")]
    assert bench.outcomes() == ["intent", "unknown"]


def test_a_delivery_is_given_up_and_can_be_replayed_under_the_same_id(bench: Receiver) -> None:
    bench.server.answer = lambda _: Answered(status=404)
    bench.transfer()
    for _ in range(5):
        bench.deliver()
        bench.clock.now += 1000
    assert bench.states() == [("dead", 3, "status-404")]
    bench.server.answer = lambda _: Answered(status=204)
    sent = delivery_id(bench.server.received[0])
    bench.call("delivery.replay", {"delivery_id": sent})
    assert bench.deliver() == 1
    assert {delivery_id(received) for received in bench.server.received} == {sent}
    assert bench.states() == [("delivered", 1, "")]


def test_a_sender_that_died_is_followed_by_another_with_the_same_id(bench: Receiver) -> None:
    bench.transfer()
    # The lease is committed, then the process is gone.
    leased = bench.parts.dispatcher._lease()
    assert len(leased) == 1
    assert bench.deliver() == 0
    bench.clock.now += 61
    assert bench.deliver() == 1
    assert delivery_id(bench.server.received[0]) == leased[0].row.id


def test_a_sender_that_died_after_sending_sends_the_same_id_again(bench: Receiver) -> None:
    bench.transfer()
    dispatcher = bench.parts.dispatcher
    dispatcher._post(dispatcher._lease()[0])
    bench.clock.now += 61
    bench.deliver()
    first, second = bench.server.received
    assert delivery_id(first) == delivery_id(second)
    assert bench.states() == [("delivered", 2, "")]


def test_a_late_failure_does_not_undo_a_later_success(bench: Receiver) -> None:
    bench.transfer()
    dispatcher = bench.parts.dispatcher
    slow = dispatcher._lease()[0]
    bench.clock.now += 61
    bench.deliver()
    dispatcher._settle(slow, "unknown", "unavailable")
    assert bench.states() == [("delivered", 2, "")]


def test_a_late_failure_does_not_shorten_the_lease_of_the_next_sender(bench: Receiver) -> None:
    bench.transfer()
    dispatcher = bench.parts.dispatcher
    slow = dispatcher._lease()[0]
    bench.clock.now += 61
    assert len(dispatcher._lease()) == 1
    dispatcher._settle(slow, "unknown", "unavailable")
    bench.clock.now += 30
    assert bench.deliver() == 0


def test_a_result_that_is_not_let_out_is_not_delivered(bench: Receiver) -> None:
    with pytest.raises(FunctionError):
        bench.transfer("an account that is too long")
    assert bench.deliver() == 0
    assert bench.states() == []


def test_an_invocation_that_fails_to_commit_delivers_nothing(bench: Receiver) -> None:
    """The result, its tokens and its delivery are one transaction."""
    from support.workbench import PlainAct

    class Broken(PlainAct):
        def finish(self, tx: Any, result: Any) -> None:
            raise FunctionError("the store said no")

    operation = bench.parts.operations()["function.invoke"]
    sealed = bench.seal("pins", "4711", account="a1")
    payload = {"function": "pin@prod", "inputs": {"pin": str(sealed), "account": "a1"}}
    request = operation.parse(json.dumps(payload).encode())
    with pytest.raises(FunctionError, match="the store said no"):
        operation.handler(bench.caller("lambda", "faas"), request, Broken(bench.store))
    assert bench.deliver() == 0


def test_without_the_right_to_deliver_nothing_runs(bench: Receiver) -> None:
    grant = {
        "principal": f"function:{bench.bundle.digest}",
        "action": "deliver",
        "resource": f"origin/{bench.url}",
    }
    bench.call("grant.delete", grant)
    with pytest.raises(DeniedError, match="deliver"):
        bench.transfer()


def test_a_right_taken_back_stops_what_is_not_yet_sent(bench: Receiver) -> None:
    bench.transfer()
    grant = {
        "principal": f"function:{bench.bundle.digest}",
        "action": "deliver",
        "resource": f"origin/{bench.url}",
    }
    bench.call("grant.delete", grant)
    assert bench.deliver() == 0
    assert bench.states() == [("dead", 1, "denied")]
    assert bench.server.received == []


@pytest.mark.parametrize("which", ["unknown", "delivered"])
def test_only_a_dead_delivery_is_replayed(bench: Receiver, which: str) -> None:
    wanted = bench.transfer()["delivery_id"] if which == "delivered" else "A" * 22
    bench.deliver()
    with pytest.raises(ConfigurationError):
        bench.call("delivery.replay", {"delivery_id": wanted})


def test_looking_after_deliveries_needs_the_right(bench: Receiver) -> None:
    with pytest.raises(DeniedError):
        bench.call("delivery.list", {}, caller=bench.caller("lambda", "faas"))


def test_the_dispatcher_delivers_by_itself_and_stops(bench: Receiver) -> None:
    import threading

    arrived = threading.Event()

    def answer(_: Received) -> Answered:
        arrived.set()
        return Answered()

    bench.server.answer = answer
    bench.parts.start()
    bench.transfer()
    assert arrived.wait(timeout=30)


def test_a_stored_payload_cannot_be_read(bench: Receiver) -> None:
    token = bench.transfer()["value"]["token"]
    with closing(sqlite3.connect(bench.folder / "host.db")) as database:
        ((content, secret),) = database.execute("SELECT content, secret FROM outbox").fetchall()
    assert token not in content
    assert token.encode() not in secret


def test_the_receiver_proves_offline_where_it_came_from(bench: Receiver) -> None:
    result = bench.transfer()
    bench.deliver()
    verified = bench.verify(bench.server.received[0])
    assert verified.payload == result["value"]
    assert (verified.delivery_id, verified.tenant) == (result["delivery_id"], "acme")
    assert (verified.function, verified.function_digest) == ("pin", bench.bundle.digest)


def test_a_delivery_that_was_tampered_with_is_skipped_and_told_and_others_go_on(bench: Receiver) -> None:
    bench.call("tenant.create", {"tenant": "other"}, caller=bench.caller(OPERATOR, tenant=SYSTEM_TENANT))
    function = Caller(tenant="other", principal="function:00", kind="function", correlation_id="c")
    with bench.store.begin() as tx:
        spoiled = bench.parts.dispatcher._outbox.add(
            tx, function, "pin", Delivery(url=bench.url, path="/"), {"a": 1}
        )
    bench.transfer()
    with closing(sqlite3.connect(bench.folder / "host.db")) as connection, connection:
        connection.execute(
            "UPDATE outbox SET content = replace(content, '00', '11') WHERE id = ?", (spoiled,)
        )
    assert bench.deliver() == 1
    assert bench.states() == [("delivered", 1, "")]
    with bench.store.begin() as tx:
        told = bench.services.audit.read(tx, "other", after="", limit=100)[-1]
        assert (told.act, told.outcome, told.resource) == ("deliver", "failed", f"outbox/{spoiled}")
        before = len(bench.services.audit.read(tx, "other", after="", limit=100))
    # It is not looked at again at once, and told of again when it is.
    bench.deliver()
    with bench.store.begin() as tx:
        assert len(bench.services.audit.read(tx, "other", after="", limit=100)) == before
    bench.clock.now += 3601
    bench.deliver()
    with bench.store.begin() as tx:
        assert len(bench.services.audit.read(tx, "other", after="", limit=100)) == before + 1


def test_an_index_that_names_what_is_not_there_holds_nobody_up(bench: Receiver) -> None:
    bench.transfer()
    with closing(sqlite3.connect(bench.folder / "host.db")) as connection, connection:
        connection.executemany(
            "INSERT INTO outbox_due (due, tenant, id) VALUES (0, ?, ?)",
            [("acme", "nothing"), ("nobody", "x"), ("", ""), ("acme", "\U0001f512" * 300)],
        )
    assert bench.deliver() == 1


BATCH = """
from typing import Annotated
from cloister.function import deliver, function, sealed, text

@function("notes", output=text(max_chars=5000), batch=True, deliver=deliver("${CARD_APP}", path="/"))
def notes(length: Annotated[list[int], sealed("pins")]) -> list[str]:
    if 13 in length:
        raise ValueError
    return ["x" * value for value in length]
"""


@pytest.fixture
def batch(bench: Receiver) -> Receiver:
    bench.deploy(BATCH, settings={"CARD_APP": bench.url})
    return bench


def notes(bench: Receiver, *lengths: object) -> dict[str, Any]:
    column = [bench.seal("pins", length) if isinstance(length, int) else length for length in lengths]
    result: dict[str, Any] = bench.invoke("notes@prod", columns={"length": column})
    return result


def test_each_row_of_a_batch_is_delivered_once(batch: Receiver) -> None:
    result = notes(batch, 1, None, "no jwe", 3)
    first, *none, last = result["delivery_ids"]
    assert none == [None, None]
    assert len({first, last}) == 2
    assert result["errors"]["2"]["code"] == "open"
    assert batch.deliver() == 2
    sent = {delivery_id(got): json.loads(got.body)["payload"] for got in batch.server.received}
    assert sent == {first: "x", last: "xxx"}
    batch.clock.now += 10_000
    assert batch.deliver() == 0


def test_a_row_that_is_too_large_to_be_delivered_has_an_error_of_its_own(
    batch: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister_host.deliveries.outbox.MAX_PAYLOAD_BYTES", 1000)
    result = notes(batch, 1, 1001, 2)
    assert result["values"] == ["x", None, "xx"]
    assert [index for index, error in result["errors"].items() if error["code"] == "limit"] == ["1"]
    assert result["delivery_ids"][1] is None
    assert batch.deliver() == 2


def test_a_batch_that_fails_delivers_nothing(batch: Receiver) -> None:
    with pytest.raises(FunctionError):
        notes(batch, 1, 13)
    assert batch.deliver() == 0
    assert batch.states() == []


def test_a_batch_sets_off_a_bounded_number_of_deliveries(
    batch: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister_host.functions.invocation.MAX_DELIVERIES", 2)
    with pytest.raises(LimitError, match="too many deliveries"):
        notes(batch, 1, 2, 3)
    assert notes(batch, 1, None, 2)["delivery_ids"][1] is None
