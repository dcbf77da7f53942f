"""What the proxy takes and gives, without a server."""

from __future__ import annotations

import inspect
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.client import Client
from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister.proxy.messages import read_body
from cloister.proxy.operations import OPERATIONS, describe, find
from cloister.proxy.problems import RefusedError

NOT_HERE = {
    "from_env": "makes a client",
    "close": "ends it",
    "forget": "a matter of the process",
    "attest": "GET /v1/attestation",
    "tree_head": "not an operation",
    "seal_object": "not JSON",
    "open_object": "not JSON",
    "upload_object": "not JSON",
    "object_reader": "not JSON",
    "invoke_stream": "not JSON",
    "receive": "not JSON",
    "import_key": "keys are not brought in the clear",
    "export_key": "its answer is opened where the private key is",
}


class Unreachable(Client):
    """A client that gets as far as its first word to the host."""

    def __init__(self):
        super().__init__(tenant="acme", policy=None, identity=None, transport=None)

    def _run(self, flow):
        try:
            flow.send(None)
        except StopIteration as stop:
            return stop.value
        raise UnavailableError("the host cannot be reached")


def test_every_operation_of_the_client_is_here_or_named_as_not_here():
    public = {name for name, _ in inspect.getmembers(Client) if not name.startswith("_")}
    assert OPERATIONS.keys() - {"mask"} <= public <= OPERATIONS.keys() | NOT_HERE.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_parameter_has_a_kind_and_the_described_path_is_found(name):
    operation = OPERATIONS[name]
    assert all(operation.kind(member).schema is not None for member in operation.parameters)
    path = f"/v1/{name}" + ("/x" if operation.in_path else "")
    assert find(path) == (operation, "x" if operation.in_path else "")


def test_the_description_names_every_operation_once():
    paths = describe(version="1")["paths"]
    described = {item["post"]["operationId"] for item in paths.values() if "post" in item}
    assert described == OPERATIONS.keys()
    seal = paths["/v1/seal"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(seal["required"]) == {"value", "key"}
    assert "signer" in seal["properties"]
    json.dumps(paths, allow_nan=False)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1/seal/",
        "/v1/seal/x",
        "/v1/invoke",
        "/v1/invoke/",
        "/v1/invoke/a/b",
    ],
)
def test_what_is_not_there_is_not_found(path):
    with pytest.raises(RefusedError) as refused:
        find(path)
    assert refused.value.code == "proxy-path"
    assert not str(refused.value).count("nothing/")


@pytest.mark.parametrize(
    ("operation", "members", "in_path"),
    [
        ("seal", {"key": "k"}, ""),
        ("seal", {"value": "v"}, ""),
        ("seal", {"value": "v", "key": 7}, ""),
        ("seal", {"value": "v", "key": "k", "colour": "crimson"}, ""),
        ("seal", {"value": "v", "key": "k", "context": {"a": 1}}, ""),
        ("seal", {"value": "v", "key": "k", "context": "a"}, ""),
        ("seal", {"value": "====", "key": "k", "type": "octets"}, ""),
        ("seal", {"value": "v", "key": "k", "type": "text"}, ""),
        ("seal_many", {"values": "v", "key": "k"}, ""),
        ("encrypt", {"data": "not base64", "key": "k"}, ""),
        ("encrypt", {"data": "AA==", "key": "k"}, ""),
        ("random", {"size_bytes": True}, ""),
        ("random", {"size_bytes": 1.0}, ""),
        ("invoke", {"inputs": []}, "f@prod"),
        ("invoke", {"function": "g@prod"}, "f@prod"),
        ("invoke", {"inputs": {"purpose": "x"}}, "f@prod"),
        ("start", {"batch": 1}, "f@prod"),
        ("tokenize", {"values": [1]}, "p"),
        ("call", {"payload": []}, "key.list"),
        ("mask", {"document": {}, "views": {"/a": "plain"}}, ""),
        ("mask", {"document": {}, "views": {"/a": {"show": "everything"}}}, ""),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(operation, members, in_path):
    class Nobody:
        def __getattr__(self, name):
            raise AssertionError("the client was asked")

    with pytest.raises(ConfigurationError) as refused:
        OPERATIONS[operation].ask(Nobody(), members, in_path=in_path)
    assert "crimson" not in str(refused.value)


def test_masking_lets_out_what_is_named():
    members = {
        "document": {"a": "1234567890", "b": 1},
        "views": {"/a": {"show": "masked", "pattern": "{last:2}"}},
    }
    assert OPERATIONS["mask"].ask(None, members, in_path="") == {"document": {"a": "90"}}


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"1",
        b"nonsense",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b"[" * 100_000,
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(raw):
    with pytest.raises(ConfigurationError):
        read_body(raw)


def test_pairs_of_surrogates_are_text():
    assert read_body(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = sorted({name for operation in OPERATIONS.values() for name in operation.parameters} | {"type"})


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(OPERATIONS)),
    members=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), ANYTHING, max_size=6),
)
def test_whatever_is_asked_only_our_errors_come_out(name, members):
    with suppress(CloisterError):
        json.dumps(OPERATIONS[name].ask(Unreachable(), members, in_path="x"), allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(value=ANYTHING, key=st.text(max_size=8), context=st.dictionaries(st.text(), st.text(), max_size=3))
def test_whatever_is_sealed_only_our_errors_come_out(value, key, context):
    with pytest.raises(CloisterError):
        OPERATIONS["seal"].ask(Unreachable(), {"value": value, "key": key, "context": context}, in_path="")


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_as_a_body_only_our_errors_come_out(raw):
    try:
        members = read_body(raw)
    except ConfigurationError:
        return
    json.dumps(members, allow_nan=False, ensure_ascii=False).encode()
