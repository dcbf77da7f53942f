"""Jobs and streams through real clients: started, waited for, cancelled; cut off and taken up again."""

from __future__ import annotations

import itertools

import anyio
import pytest

from cloister import AsyncClient, Client, jose
from cloister.client import policy_from
from cloister.errors import FunctionError, LimitError, OpenError, UnavailableError
from cloister.identity import ApiKey
from cloister.transport.stdlib import HttpTransport
from cloister_host.testing import embedded_host

FUNCTION = """
from typing import Annotated
from cloister.function import boolean, budget, function, sealed

@function("odd", batch=True, output=boolean(),
          budget=budget(subject="row", per_subject=1, per_principal=4000, period="day"))
def odd(number: Annotated[list[int], sealed("numbers", context=["row"])]) -> list[bool]:
    return [value % 2 == 1 for value in number]
"""

SLOW = """
import time
from cloister.function import Limits, boolean, function, progress

@function("slow", output=boolean(), progress=True, limits=Limits(timeout_seconds=600))
def slow(hangs: bool) -> bool:
    progress(1, 4)
    while hangs:
        time.sleep(0.01)
    return True
"""

AUTHORED = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("signed", output=boolean())
def signed(dose: Annotated[int, sealed("numbers", context=["row"], sealed_by="clinic")]) -> bool:
    return dose > 10
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def tenant(host, tmp_path):
    tenant = host.tenant()
    tenant.admin.call("key.create", {"key": "numbers", "purpose": "seal"})
    for name, source in (("odd", FUNCTION), ("slow", SLOW), ("signed", AUTHORED)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "function.py").write_text(source)
        tenant.deploy(tmp_path / name)
    yield tenant
    tenant.admin.close()


RIGHTS = [("seal", "key/numbers"), *(("invoke", f"function/{name}") for name in ("odd", "slow", "signed"))]


@pytest.fixture
def client(tenant):
    with tenant.client("app", RIGHTS) as client:
        yield client


def rows(client: Client, count: int) -> list[dict[str, str]]:
    contexts = [{"row": str(number)} for number in range(count)]
    sealed = client.seal_many(list(range(count)), key="numbers", contexts=contexts)
    return [{"number": value, **context} for value, context in zip(sealed, contexts, strict=True)]


def test_a_stream_answers_every_row_in_order_and_takes_no_more_than_it_needs(client):
    source = iter(given := rows(client, 2500))
    taken = []
    stream = client.invoke_stream(
        "odd@prod",
        (taken.append(None) or row for row in source),
        context=["row"],
        rows_per_request=1500,
    )
    first = next(stream)
    assert len(taken) == 1500
    replies = [first, *stream]
    assert [len(reply.values) for reply in replies] == [1000, 500, 1000]
    assert list(itertools.chain(*(reply.values for reply in replies))) == [
        number % 2 == 1 for number in range(len(given))
    ]
    assert len({reply.receipt.id for reply in replies}) == 3
    assert all(not reply.errors for reply in replies)


def test_the_same_stream_again_is_free_under_its_key(client):
    given = rows(client, 1200)
    again = [
        list(client.invoke_stream("odd@prod", given, context=["row"], idempotency_key="k")) for _ in "12"
    ]
    assert [reply.receipt.id for reply in again[0]] == [reply.receipt.id for reply in again[1]]
    assert all(not reply.errors for reply in again[1])
    anew = list(client.invoke_stream("odd@prod", given, context=["row"]))
    assert all(len(reply.errors) == len(reply.values) for reply in anew), "each row's budget is spent"


def test_what_ends_a_stream_comes_after_the_replies_before_it(client):
    stream = client.invoke_stream("odd@prod", rows(client, 4500), context=["row"])
    got = [next(stream) for _ in range(4)]
    assert [len(reply.values) for reply in got] == [1000] * 4
    with pytest.raises(LimitError, match="gives a principal"):
        next(stream)


class Cutting(HttpTransport):
    """Loses the end of the first streamed reply."""

    def __init__(self, url: str, *, kept: int) -> None:
        super().__init__(url)
        self.kept = kept
        self.cuts = 0

    def post(self, path, body, *, content_type, timeout_seconds):
        response = super().post(path, body, content_type=content_type, timeout_seconds=timeout_seconds)
        if response.body.startswith(b"clstrm") and not self.cuts:
            self.cuts += 1
            return type(response)(status=response.status, body=response.body[: self.kept])
        return response


@pytest.mark.parametrize("kept", [0, 30, 2000])
def test_a_stream_that_is_cut_off_is_taken_up_again(host, tenant, client, kept):
    given = rows(client, 1200)
    transport = Cutting(host.url, kept=kept)
    cut = Client(
        tenant=tenant.name,
        policy=policy_from(host.policy),
        identity=ApiKey.from_file(tenant.key_file("app")),
        transport=transport,
    )
    replies = list(cut.invoke_stream("odd@prod", given, context=["row"]))
    assert transport.cuts == 1
    # Nothing was answered twice: the budget of each row is one answer.
    assert [reply.errors for reply in replies] == [{}, {}]
    cut.close()


def test_a_stream_that_is_sent_again_stays_with_the_code_it_began_with(tenant, client, tmp_path):
    """Its second thousand fails under the first digest; a second digest that would not must not finish it."""
    source = FUNCTION.replace("per_subject=1, per_principal=4000", "per_subject=9, per_principal=9000")
    for version, line in (("fails", "if 1000 in number: raise ValueError"), ("works", "pass")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "function.py").write_text(source.replace("return [", f"{line}\n    return ["))
    given = rows(client, 1200)

    def stream(key):
        return list(client.invoke_stream("odd@prod", given, context=["row"], idempotency_key=key))

    tenant.deploy(tmp_path / "fails")
    with pytest.raises(FunctionError):
        stream("begun")
    tenant.deploy(tmp_path / "works")
    with pytest.raises(FunctionError):
        stream("begun")
    assert len(stream("new")) == 2


def test_a_stream_is_for_batch_functions_and_rows_of_one_kind(client):
    for stream in (
        client.invoke_stream("slow@prod", [{"hangs": False}]),
        client.invoke_stream("odd@prod", [{"number": "x", "row": "1"}, {"number": "x"}], context=["row"]),
        client.invoke_stream("odd@prod", [{"number": "x", "row": "1"}], rows_per_request=0),
    ):
        with pytest.raises(Exception, match=r"batch|columns|different members|rows_per_request|one set"):
            list(stream)
    assert list(client.invoke_stream("odd@prod", [], context=["row"])) == []


def test_an_asynchronous_client_streams_and_waits_too(host, tenant, client):
    given = rows(client, 1100)

    async def go():
        settings = {
            "url": host.url,
            "tenant": tenant.name,
            "policy": str(host.policy),
            "identity": "key",
            "api_key_file": str(tenant.key_file("app")),
        }
        async with AsyncClient.from_env(**settings) as asynchronous:
            stream = asynchronous.invoke_stream("odd@prod", given, context=["row"])
            sizes = [len(reply.values) async for reply in stream]
            job = await asynchronous.wait(await asynchronous.start("slow@prod", hangs=False))
            return sizes, job.result().value

    assert anyio.run(go) == ([1000, 100], True)


def test_a_job_is_waited_for(client):
    job = client.start("slow@prod", hangs=False)
    with pytest.raises(UnavailableError, match="has not ended"):
        job.result()
    done = client.wait(job, timeout_seconds=60)
    assert (done.state, done.percent) == ("done", 100)
    assert done.result().value is True
    assert client.job(job.id).result().receipt.id == done.result().receipt.id


def test_a_job_is_seen_and_ended_while_it_runs(client):
    job = client.start("slow@prod", hangs=True)
    while client.job(job).percent != 25:
        client.wait(job, timeout_seconds=0.2)
    client.cancel(job)
    ended = client.wait(job, timeout_seconds=60)
    assert ended.state == "cancelled"
    with pytest.raises(FunctionError, match="cancelled"):
        ended.result()


def test_a_second_start_under_a_key_is_the_first_job(client):
    first, second = (client.start("slow@prod", hangs=False, idempotency_key="k") for _ in range(2))
    assert first.id == second.id


def test_a_value_is_signed_by_its_author_while_it_is_sealed(client, tenant):
    clinic = jose.generate_key("EdDSA", kid="clinic")
    tenant.admin.call("signer.add", {"signer": "clinic", "use": "author", "jwk": jose.public_jwk(clinic)})
    context = {"row": "1"}
    good = client.seal(50, key="numbers", context=context, signer=clinic.to_jwk())
    assert client.invoke("signed@prod", dose=good, context=context).value is True
    other = jose.generate_key("EdDSA", kid="clinic").to_jwk()
    for bad in (
        client.seal(50, key="numbers", context=context),
        client.seal(50, key="numbers", context=context, signer=other),
    ):
        with pytest.raises(OpenError):
            client.invoke("signed@prod", dose=bad, context=context)
