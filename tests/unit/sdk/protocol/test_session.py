"""When the client tries again, when it attests again, and what it never believes."""

from __future__ import annotations

import json

import pytest

from cloister import jose
from cloister.errors import DeniedError, LogError, UnavailableError
from cloister.protocol import KeysetKey, body_digest, open_request, request_kid, seal_reply, sign_keyset
from cloister.protocol.session import Attest, Authenticate, Response, Send, Wait, exchange

NOW = 1_800_000_000
DAY = 86_400
CREDENTIAL = {"type": "api-key", "value": "clk_x_y"}
BODY = {"op": "x", "tenant": "t", "idempotency_key": "once", "payload": {}}


class Host:
    """Holds epochs of request keys, and answers as it is told."""

    def __init__(self):
        self.deployment_key = jose.generate_key("EdDSA")
        self.now = NOW
        self.requests = []
        self.steps = []
        self.bindings = []
        self.rotate()

    def rotate(self):
        kid = f"r{len(self.steps)}"
        self.private = jose.generate_key("HPKE-10-KE", kid=kid)
        self.keyset = sign_keyset(
            keys=(
                KeysetKey(
                    role="request",
                    kid=kid,
                    jwk=self.private.public().to_jwk(),
                    not_before=int(self.now) - 60,
                    expires=int(self.now) + DAY,
                ),
            ),
            config={},
            holders=(),
            issued_at=int(self.now),
            expires=int(self.now) + DAY,
            deployment_key=self.deployment_key,
        )

    def open(self, body):
        token = body.decode()
        jwe, kid = request_kid(token)
        if kid != self.private.kid:
            return None
        opened = open_request(jwe, token=token, key=self.private, now=self.now)
        self.requests.append(opened)
        return opened

    def reply(self, body, answer):
        opened = self.open(body)
        if opened is None:
            return Response(status=400, body=b"{}")
        return Response(status=200, body=seal_reply(answer, request=opened).encode())


class Known:
    def __init__(self, keyset):
        self.keyset = keyset


def drive(host, answers):
    """Run an exchange; `answers` is a list of functions from a request body to a response."""
    flow = exchange(BODY, clock=lambda: host.now, jitter=lambda: 0.5)
    answers = iter(answers)
    outcome = None
    try:
        while True:
            step = flow.send(outcome)
            if isinstance(step, Authenticate):
                assert step.deployment == host.keyset.deployment
                host.bindings.append(step.request)
                outcome = CREDENTIAL
                continue
            host.steps.append(step)
            if isinstance(step, Attest):
                outcome = Known(host.keyset)
            elif isinstance(step, Send):
                outcome = next(answers)(step.body)
            else:
                host.now += step.seconds
                outcome = None
    except StopIteration as stop:
        return stop.value


@pytest.fixture
def host():
    return Host()


def kinds(host):
    return [type(step) for step in host.steps]


def ok(host):
    return lambda body: host.reply(body, {"result": {"n": 1}})


def error(host, *, retryable, code="denied"):
    return lambda body: host.reply(
        body, {"error": {"code": code, "message": "m", "retryable": retryable, "hint": "h"}}
    )


def nothing(_body):
    return None


def test_a_call_attests_sends_once_and_returns_the_result(host):
    assert drive(host, [ok(host)]) == {"n": 1}
    assert kinds(host) == [Attest, Send]


def test_an_error_under_seal_is_raised_with_its_type_and_not_repeated(host):
    with pytest.raises(DeniedError, match="m"):
        drive(host, [error(host, retryable=False)])
    assert kinds(host) == [Attest, Send]


def test_a_retryable_error_is_tried_again_with_a_new_request_and_the_same_idempotency_key(host):
    assert drive(host, [error(host, retryable=True, code="unavailable"), ok(host)]) == {"n": 1}
    first, second = host.requests
    assert first.jti != second.jti
    assert first.body["idempotency_key"] == second.body["idempotency_key"] == "once"


def test_without_an_answer_the_same_ciphertext_is_sent_again(host):
    assert drive(host, [nothing, nothing, ok(host)]) == {"n": 1}
    bodies = {step.body for step in host.steps if isinstance(step, Send)}
    assert len(bodies) == 1


def test_it_gives_up_after_four_attempts(host):
    with pytest.raises(UnavailableError):
        drive(host, [nothing] * 9)
    assert kinds(host).count(Send) == 4


def test_waits_grow_and_are_jittered(host):
    with pytest.raises(UnavailableError):
        drive(host, [nothing] * 4)
    waits = [step.seconds for step in host.steps if isinstance(step, Wait)]
    assert waits == sorted(waits)
    assert len(set(waits)) == 3


def test_a_refusal_in_the_clear_is_a_reason_to_attest_again_once(host):
    refused = Response(status=403, body=json.dumps({"code": "denied"}).encode())
    assert drive(host, [lambda _b: refused, ok(host)]) == {"n": 1}
    assert kinds(host) == [Attest, Send, Attest, Send]


def test_a_refusal_in_the_clear_is_never_a_verdict(host):
    refused = Response(status=403, body=json.dumps({"code": "denied", "title": "no"}).encode())
    with pytest.raises(UnavailableError):
        drive(host, [lambda _b: refused] * 9)
    assert kinds(host).count(Attest) == 2


def test_a_result_in_the_clear_is_not_believed(host):
    forged = Response(status=200, body=json.dumps({"result": {"n": 2}}).encode())
    with pytest.raises(UnavailableError):
        drive(host, [lambda _b: forged] * 9)


def test_a_rotated_host_is_found_again(host):
    def rotated(body):
        host.rotate()
        return host.reply(body, {"result": {}})

    assert drive(host, [rotated, ok(host)]) == {"n": 1}
    assert kinds(host) == [Attest, Send, Attest, Send]


def test_a_client_that_lives_for_days_follows_every_epoch(host):
    known, results = Known(host.keyset), []
    for _day in range(5):
        flow = exchange(BODY, clock=lambda: host.now, jitter=lambda: 0.5)
        outcome = None
        try:
            while True:
                step = flow.send(outcome)
                if isinstance(step, Attest):
                    # As the driver does: what is known serves until the exchange rejects it.
                    if step.reject == known.keyset.digest:
                        host.rotate()
                        known = Known(host.keyset)
                    outcome = known
                elif isinstance(step, Authenticate):
                    outcome = CREDENTIAL
                else:
                    outcome = host.reply(step.body, {"result": {"n": 1}})
        except StopIteration as stop:
            results.append(stop.value)
        host.now += DAY + 3600
    assert results == [{"n": 1}] * 5


def test_something_on_the_way_that_refuses_large_requests_is_named(host):
    with pytest.raises(UnavailableError, match="size") as caught:
        drive(host, [lambda _b: Response(status=413, body=b"")])
    assert caught.value.retryable is False


def steps_until_attested(host, answers):
    flow = exchange(BODY, clock=lambda: host.now, jitter=lambda: 0.5)
    seen, outcome = [], None
    for answer in answers:
        step = flow.send(outcome)
        while isinstance(step, Wait):
            seen.append(Wait)
            step = flow.send(None)
        seen.append(type(step))
        outcome = answer
    return flow, seen, outcome


def test_a_host_that_is_just_starting_is_waited_for(host):
    flow, seen, known = steps_until_attested(host, [None, None, Known(host.keyset)])
    assert seen == [Attest, Wait, Attest, Wait, Attest]
    assert isinstance(flow.send(known), Authenticate)
    assert isinstance(flow.send(CREDENTIAL), Send)


def test_a_credential_is_asked_for_each_request_and_told_which(host):
    drive(host, [error(host, retryable=True), ok(host)])
    first, second = host.requests
    assert [binding.jti for binding in host.bindings] == [first.jti, second.jti]
    assert {binding.kid for binding in host.bindings} == {first.kid}
    assert first.body == {**BODY, "credential": CREDENTIAL}
    payload = b"{}"
    members = {"op": "x", "tenant": "t", "idempotency_key": "once", "purpose": ""}
    assert host.bindings[0].digest() == body_digest(payload, **members)
    others = [body_digest(payload, **{**members, name: "other"}) for name in members]
    assert len({body_digest(b"[]", **members), body_digest(payload, **members), *others}) == 6


def test_a_host_that_never_answers_is_an_error(host):
    flow, _, outcome = steps_until_attested(host, [None] * 4)
    with pytest.raises(UnavailableError, match="CLOISTER_URL"):
        flow.send(outcome)


# --- tree heads ---


class Heads:
    """Rules that say yes or no, and remember what they were asked."""

    def __init__(self, size=None, error=None):
        self.base = None if size is None else type("Head", (), {"size": size})()
        self.error, self.replies = error, []

    def kept(self, _keyset):
        return self.base

    def accept(self, reply, *, keyset, base):
        assert base is self.base
        self.replies.append((reply, keyset.digest))
        if self.error is not None:
            raise self.error


def drive_with_heads(host, heads, answer):
    flow = exchange(BODY, clock=lambda: host.now, jitter=lambda: 0.5, heads=heads)
    step = next(flow)
    try:
        while True:
            match step:
                case Attest():
                    step = flow.send(Known(host.keyset))
                case Authenticate():
                    step = flow.send(CREDENTIAL)
                case Send():
                    step = flow.send(answer(step.body))
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize(("size", "said"), [(None, 0), (17, 17)])
def test_a_request_says_how_much_of_the_log_was_seen(host, size, said):
    drive_with_heads(host, heads := Heads(size), ok(host))
    assert json.loads(host.requests[0].plaintext)["log_size"] == said
    assert heads.replies == [({"result": {"n": 1}}, host.keyset.digest)]


def test_a_reply_whose_head_is_refused_is_no_reply(host):
    with pytest.raises(LogError):
        drive_with_heads(host, Heads(error=LogError("forked")), ok(host))


def test_an_error_whose_head_is_refused_is_not_believed_either(host):
    with pytest.raises(LogError):
        drive_with_heads(host, Heads(error=LogError("forked")), error(host, retryable=False))
