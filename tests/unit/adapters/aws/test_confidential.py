"""The Lambda decorator: what the platform sees, what the handler gets, and what gets out of it."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from pathlib import Path

import pytest

from cloister.errors import ConfigurationError, DeniedError, HandlerError, UnavailableError
from cloister_aws import AsyncEnclave, Enclave, confidential
from support.aws_events import ARN, LambdaContext
from support.aws_events import event as recorded

SECRET = "balance 75382"


def once(event, context, *, enclave: Enclave):
    return enclave(history=event["history"], context={"customer": "17"}).value


def twice(event, context, *, enclave: Enclave):
    return [enclave(n=n).value for n in range(2)]


# --- what the platform sees ---


def test_the_platform_sees_an_ordinary_handler():
    handler = confidential("credit-forecast@prod")(once)
    assert list(inspect.signature(handler).parameters) == ["event", "context"]
    assert "enclave" not in handler.__annotations__
    assert not hasattr(handler, "__wrapped__")
    assert handler.__name__ == "once"


def test_decorating_needs_no_settings(monkeypatch):
    for name in ("CLOISTER_URL", "CLOISTER_TENANT", "CLOISTER_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert confidential("credit-forecast@prod")(lambda event, context, *, enclave: event)({"n": 1}, None) == {
        "n": 1
    }


def test_missing_settings_are_told_on_the_first_call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("CLOISTER_URL", "CLOISTER_TENANT", "CLOISTER_POLICY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="CLOISTER_URL"):
        confidential("credit-forecast@prod")(twice)({}, None)


@pytest.mark.parametrize("name", ["credit-forecast", "Credit@prod", "credit-forecast@", "@prod", "a@b@c", ""])
def test_a_name_without_alias_or_out_of_shape_is_refused(name):
    with pytest.raises(ConfigurationError):
        confidential(name)


def test_a_handler_without_the_keyword_only_parameter_is_refused():
    with pytest.raises(ConfigurationError, match="enclave"):
        confidential("credit-forecast@prod")(lambda event, context: None)
    with pytest.raises(ConfigurationError, match="enclave"):
        confidential("credit-forecast@prod")(lambda event, context, enclave: None)


# --- what the handler gets ---


def test_a_call_names_the_function_and_passes_inputs_and_context(invoker):
    handler = confidential("credit-forecast@prod", client=invoker)(once)
    assert handler({"history": "x"}, LambdaContext()) is True
    (call,) = invoker.calls
    assert call["function"] == "credit-forecast@prod"
    assert (call["history"], call["context"]) == ("x", {"customer": "17"})


def test_a_batch_is_one_call(invoker):
    @confidential("ssn-breached@prod", client=invoker)
    def handler(event, context, *, enclave):
        return enclave.batch(ssn=["a", "b"], context={"member": ["1", "2"]}).values

    assert handler({}, LambdaContext()) == [True, True]
    assert invoker.calls[0]["context"] == {"member": ["1", "2"]}


def test_an_enclave_offers_no_way_to_a_plaintext():
    public = {name for name in dir(Enclave) if not name.startswith("_")}
    assert public == {"batch"}
    assert not {name for name in public if any(word in name for word in ("open", "crypt", "token", "unwrap"))}


def test_the_package_offers_no_way_to_a_plaintext():
    import cloister_aws

    for module in (cloister_aws, cloister_aws.s3):
        names = " ".join(module.__all__)
        assert not any(word in names for word in ("open", "decrypt", "detokenize", "unwrap"))


# --- one effect an invocation ---


def test_a_retry_of_the_same_event_repeats_the_same_keys(invoker):
    handler = confidential("credit-forecast@prod", client=invoker)(twice)
    handler({}, LambdaContext())
    handler({}, LambdaContext())
    first, second = invoker.keys[:2], invoker.keys[2:]
    assert first == second
    assert first[0] != first[1]


@pytest.mark.parametrize(
    "other",
    [LambdaContext(aws_request_id="6f2d"), LambdaContext(invoked_function_arn=ARN + "2")],
    ids=["another request", "another Lambda function"],
)
def test_another_invocation_has_other_keys(invoker, other):
    handler = confidential("credit-forecast@prod", client=invoker)(twice)
    handler({}, LambdaContext())
    handler({}, other)
    assert len(set(invoker.keys)) == 4


def test_another_confidential_function_has_other_keys(invoker):
    for name in ("credit-forecast@prod", "credit-forecast@test"):
        confidential(name, client=invoker)(twice)({}, LambdaContext())
    assert len(set(invoker.keys)) == 4


def test_a_key_tells_nothing_of_the_request(invoker):
    confidential("credit-forecast@prod", client=invoker)(twice)({}, LambdaContext(aws_request_id="alice"))
    assert not any("alice" in key for key in invoker.keys)


@pytest.mark.parametrize("context", [None, LambdaContext(aws_request_id="")])
def test_without_a_request_id_the_client_draws_the_key(invoker, context):
    confidential("credit-forecast@prod", client=invoker)(twice)({}, context)
    assert invoker.keys == [None, None]


# --- what gets out of a failing handler ---


def failing(error):
    @confidential("credit-forecast@prod")
    def handler(event, context, *, enclave):
        raise error  # the source line of 75382

    return handler


def escaped(handler):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - which type gets out is what is asked
        handler({}, LambdaContext())
    return caught.value


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), KeyError(SECRET), SystemExit(SECRET), ConfigurationError(SECRET)], ids=repr
)
def test_nothing_of_what_a_handler_raises_gets_out(error):
    clean = escaped(failing(error))
    assert type(clean) is HandlerError
    assert type(error).__name__ in str(clean)
    assert "75382" not in "".join(traceback.format_exception(clean))
    assert clean.__cause__ is None
    assert clean.__context__ is None


def test_the_source_lines_of_the_handler_are_not_in_the_traceback():
    frames = traceback.extract_tb(escaped(failing(ValueError(SECRET))).__traceback__)
    own = [frame for frame in frames if frame.filename != __file__]
    assert {Path(frame.filename).parent.name for frame in own} <= {"cloister_aws", "faas"}
    assert {frame.name for frame in frames if frame.filename == __file__} == {"escaped"}


def test_an_error_of_our_types_that_others_raise_is_held_back_too(invoker):
    invoker.error = DeniedError(SECRET, hint=SECRET, correlation_id="c-1")
    clean = escaped(confidential("credit-forecast@prod", client=invoker)(once_of("x")))
    assert type(clean) is HandlerError
    assert "DeniedError" in str(clean)
    assert "75382" not in str(clean)


def test_an_error_that_cloister_raised_is_passed_on_as_a_fresh_one():
    class Unreachable:
        def post(self, path, body, *, content_type, timeout_seconds):
            from cloister.transport import TransportError

            raise TransportError(SECRET)

    from cloister import Client
    from cloister.attestation import AppraisalPolicy
    from cloister.identity import ApiKey

    policy = AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "environment": "simulated",
            "deployment": "A" * 43,
            "tee": {"simulated": {"reference": [{"name": "x", "measurement": "00" * 48}]}},
        }
    )
    client = Client(
        tenant="acme", policy=policy, identity=ApiKey("clk_x_y"), transport=Unreachable(), timeout_seconds=1
    )
    clean = escaped(confidential("credit-forecast@prod", client=client)(once_of(SECRET)))
    assert type(clean) is UnavailableError
    assert clean.retryable
    assert "CLOISTER_URL" in clean.hint
    assert "75382" not in "".join(traceback.format_exception(clean))


def once_of(value):
    def handler(event, context, *, enclave):
        return enclave(history=value)

    return handler


def test_a_keyboard_interrupt_still_interrupts():
    assert type(escaped(failing(KeyboardInterrupt()))) is KeyboardInterrupt


# --- coroutines ---


def test_a_coroutine_is_run_to_its_end_and_its_calls_may_be_gathered(invoker):
    @confidential("credit-forecast@prod", client=invoker)
    async def handler(event, context, *, enclave: AsyncEnclave):
        replies = await asyncio.gather(*(enclave(n=n) for n in range(3)))
        rows = await enclave.batch(ssn=["a", "b"])
        return [reply.value for reply in replies] + rows.values

    assert not inspect.iscoroutinefunction(handler)
    for _ in range(2):
        assert handler({}, LambdaContext()) == [True] * 5
    by_input = [{call.get("n", "batch"): call["key"] for call in invoker.calls[i : i + 4]} for i in (0, 4)]
    assert by_input[0] == by_input[1]
    assert len(set(invoker.keys)) == 4


def test_what_a_coroutine_raises_carries_nothing_out():
    @confidential("credit-forecast@prod")
    async def handler(event, context, *, enclave):
        raise ValueError(SECRET)

    assert "75382" not in "".join(traceback.format_exception(escaped(handler)))


def test_no_task_of_one_invocation_lives_on_into_the_next(invoker):
    left = []

    @confidential("credit-forecast@prod", client=invoker)
    async def handler(event, context, *, enclave):
        left.append(asyncio.create_task(asyncio.sleep(3600)))

    handler({}, LambdaContext())
    assert left[0].cancelled()


# --- Powertools' decorators ---


@pytest.fixture
def table(monkeypatch):
    """An idempotency table, of moto."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("dynamodb").create_table(
            TableName="seen",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield boto3.resource("dynamodb").Table("seen")


def test_idempotency_outside_stores_what_left_the_adapter_and_nothing_else(table, invoker, sealed):
    idempotency = pytest.importorskip("aws_lambda_powertools.utilities.idempotency")
    invoker.value = sealed

    @idempotency.idempotent(persistence_store=idempotency.DynamoDBPersistenceLayer(table_name="seen"))
    @confidential("credit-forecast@prod", client=invoker)
    def handler(event, context, *, enclave):
        if event.get("fail"):
            raise ValueError(SECRET)
        reply = enclave(history=event["history"])
        return {"forecast": reply.value}

    first = handler({"history": "eyJ"}, LambdaContext())
    again = handler({"history": "eyJ"}, LambdaContext(aws_request_id="another"))
    assert first == again == {"forecast": sealed}
    assert len(invoker.calls) == 1
    with pytest.raises(HandlerError):
        handler({"fail": True}, LambdaContext())
    (stored,) = table.scan()["Items"]  # a failure is not stored: it may be tried again
    assert "75382" not in str(stored)
    assert str(sealed) in stored["data"]


def test_loggers_event_sources_and_metrics_go_outside_too(invoker):
    powertools = pytest.importorskip("aws_lambda_powertools")
    from aws_lambda_powertools.utilities.data_classes import SQSEvent, event_source

    @powertools.Logger(service="forecast").inject_lambda_context(log_event=False)
    @event_source(data_class=SQSEvent)
    @confidential("credit-forecast@prod", per="record", client=invoker)
    def handler(record, context, *, enclave):
        return enclave(body=record["body"]).value

    assert handler(recorded("sqs"), LambdaContext()) == {"batchItemFailures": []}
    assert len(invoker.calls) == 1
