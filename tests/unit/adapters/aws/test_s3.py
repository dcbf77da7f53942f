"""Sealed values in S3 (moto): stored as they are, refused when they are something else."""

from __future__ import annotations

import os

import pytest

from cloister.envelope import Sealed
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    LimitError,
    OpenError,
    UnavailableError,
)
from cloister_aws import s3
from local_cloud.s3 import LocalS3
from support.aws_events import event

BUCKET = "histories"
KEY = "customers/jane-doe.jwe"


@pytest.fixture(scope="module")
def cloud():
    with LocalS3() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def client(cloud):
    client = cloud.client()
    client.create_bucket(Bucket=BUCKET)
    return client


def test_a_sealed_value_comes_back_as_it_went(client, sealed):
    s3.put_sealed(BUCKET, KEY, sealed, s3=client)
    found = s3.get_sealed(BUCKET, KEY, s3=client)
    assert (found, type(found)) == (sealed, Sealed)


def test_an_object_says_what_it_is_and_which_key_it_is_under(client, sealed):
    s3.put_sealed(BUCKET, KEY, sealed, s3=client)
    head = client.head_object(Bucket=BUCKET, Key=KEY)
    assert head["ContentType"] == "application/jose"
    assert head["Metadata"] == {"cloister-kid": "credit-histories.1"}


def test_only_new_replaces_nothing(client, sealed):
    s3.put_sealed(BUCKET, "new", sealed, s3=client, only_new=True)
    with pytest.raises(ConfigurationError, match="already"):
        s3.put_sealed(BUCKET, "new", sealed, s3=client, only_new=True)


def test_a_replacement_may_ask_for_the_object_it_replaces(client, sealed):
    etag = s3.put_sealed(BUCKET, "versioned", sealed, s3=client)
    s3.put_sealed(BUCKET, "versioned", sealed, s3=client, if_match=etag)
    with pytest.raises(ConfigurationError, match="another"):
        s3.put_sealed(BUCKET, "versioned", sealed, s3=client, if_match='"0123456789abcdef0123456789abcdef"')
    with pytest.raises(ConfigurationError, match="both"):
        s3.put_sealed(BUCKET, "versioned", sealed, s3=client, if_match=etag, only_new=True)


def test_metadata_goes_with_the_value_and_cannot_lie_about_its_key(client, sealed):
    etag = s3.put_sealed(
        BUCKET, "noted", sealed, s3=client, metadata={"batch": "7", "cloister-kid": "other.9"}
    )
    found = s3.head_sealed(BUCKET, "noted", s3=client)
    assert found == ("credit-histories.1", etag, len(sealed), {"batch": "7"})
    with pytest.raises(ConfigurationError):
        s3.head_sealed(BUCKET, "absent", s3=client)


def test_a_session_is_taken_as_well_as_a_client(cloud, client, sealed, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    s3.put_sealed(BUCKET, "by-session", sealed, s3=cloud.session())
    assert s3.get_sealed(BUCKET, "by-session", s3=cloud.session()) == sealed


def test_a_notification_names_its_object_decoded():
    record = event("s3_put")["Records"][0]
    assert s3.object_of(record) == ("amzn-s3-demo-bucket", "test/key")
    for other in ({}, {"s3": None}, event("sqs")["Records"][0]):
        with pytest.raises(ConfigurationError):
            s3.object_of(other)


@pytest.mark.parametrize("plaintext", ["", "balance 75382", '{"balance":75382}', "a.b.c.d.e", "\u0661"])
def test_a_plaintext_is_never_stored_by_mistake(client, plaintext):
    with pytest.raises(OpenError) as refusal:
        s3.put_sealed(BUCKET, "plain", plaintext, s3=client)
    assert "75382" not in str(refusal.value)
    with pytest.raises(ConfigurationError):
        s3.get_sealed(BUCKET, "plain", s3=client)


@pytest.mark.parametrize("body", [b"", b"balance 75382", b"\xff\xfe\x00", b"a.b.c.d.e"])
def test_an_object_that_is_no_sealed_value_is_refused(client, body):
    client.put_object(Bucket=BUCKET, Key="other", Body=body)
    with pytest.raises(OpenError) as refusal:
        s3.get_sealed(BUCKET, "other", s3=client)
    assert "75382" not in str(refusal.value)


def test_an_object_over_the_limit_is_refused(client, sealed, monkeypatch):
    s3.put_sealed(BUCKET, KEY, sealed, s3=client)
    monkeypatch.setattr(s3, "MAX_CHARS", len(sealed) - 1)
    with pytest.raises(LimitError):
        s3.get_sealed(BUCKET, KEY, s3=client)
    monkeypatch.setattr(s3, "MAX_CHARS", len(sealed))
    assert s3.get_sealed(BUCKET, KEY, s3=client) == sealed


@pytest.mark.parametrize(("bucket", "key"), [(BUCKET, "jane-doe-2"), ("jane-doe-bucket", KEY)])
def test_an_error_names_neither_bucket_nor_key(client, bucket, key):
    with pytest.raises(ConfigurationError) as refusal:
        s3.get_sealed(bucket, key, s3=client)
    assert "jane" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


class Refusing:
    """The edge of boto3: every call fails with one of S3's codes."""

    def __init__(self, code):
        self.code = code

    def get_object(self, **_):
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": self.code, "Message": KEY}}, "GetObject")


@pytest.mark.parametrize(
    ("code", "expected"),
    [("AccessDenied", DeniedError), ("SlowDown", UnavailableError), ("InternalError", UnavailableError)],
)
def test_what_s3_answers_becomes_one_of_our_errors(code, expected):
    with pytest.raises(CloisterError) as failure:
        s3.get_sealed(BUCKET, KEY, s3=Refusing(code))
    assert type(failure.value) is expected
    assert "jane" not in str(failure.value)


def test_a_server_that_cannot_be_reached_is_unavailable(cloud):
    from botocore.config import Config

    once = Config(connect_timeout=1, retries={"total_max_attempts": 1})
    client = cloud.session().client("s3", endpoint_url="http://127.0.0.1:9", config=once)
    with pytest.raises(UnavailableError):
        s3.get_sealed(BUCKET, KEY, s3=client)


def test_by_default_the_environment_says_where_s3_is(cloud, client, sealed, monkeypatch):
    for name, value in cloud.environment.items():
        monkeypatch.setitem(os.environ, name, value)
    s3._default_client.cache_clear()
    s3.put_sealed(BUCKET, "default", sealed)
    assert s3.get_sealed(BUCKET, "default", s3=client) == sealed
    s3._default_client.cache_clear()
