"""The Lambda decorator: what the platform sees, what the handler gets, and what gets out of it."""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass

import pytest

from cloister.errors import ConfigurationError, DeniedError, HandlerError, UnavailableError
from cloister_aws import Enclave, confidential

SECRET = "balance 75382"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:forecast"


@dataclass
class LambdaContext:
    aws_request_id: str = "6f2c"
    invoked_function_arn: str = ARN


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


def test_a_coroutine_is_refused_since_lambda_would_not_await_it():
    async def handler(event, context, *, enclave):
        return None

    with pytest.raises(ConfigurationError, match="async"):
        confidential("credit-forecast@prod")(handler)


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
    assert len(own) == 1
    assert own[0].filename.endswith("cloister_aws/handlers.py")
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
