"""Both clients offer the same operations, written once."""

from __future__ import annotations

import inspect

import pytest

from cloister import AsyncClient, Client

BLOCKING_ONLY = {"upload_object", "object_reader", "receive", "close"}
STATING_A_PURPOSE = (
    *("open", "open_many", "open_column", "tokenize", "detokenize", "call"),
    *("invoke", "invoke_batch", "invoke_stream", "start"),
    *("encrypt", "encrypt_many", "decrypt", "decrypt_many", "mac", "sign", "verify"),
    *("rewrap", "random", "export_key"),
)
LOCAL = {"from_env", "forget", "tree_head"}


def operations(cls):
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}


def test_both_clients_have_the_same_operations():
    assert operations(Client) - BLOCKING_ONLY == operations(AsyncClient) - {"aclose", "receive"}


@pytest.mark.parametrize("name", sorted(operations(Client) - BLOCKING_ONLY - LOCAL - {"invoke_stream"}))
def test_an_operation_has_one_signature_and_one_documentation(name):
    one, other = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(one) == inspect.signature(other)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    assert "Flow" not in str(inspect.signature(one).return_annotation)
    assert inspect.iscoroutinefunction(other)
    assert not inspect.iscoroutinefunction(one)


def test_streams_take_the_same():
    one, other = inspect.signature(Client.invoke_stream), inspect.signature(AsyncClient.invoke_stream)
    assert one.parameters == other.parameters


@pytest.mark.parametrize("name", STATING_A_PURPOSE)
def test_what_grants_can_condition_on_a_purpose_states_one(name):
    parameter = inspect.signature(getattr(Client, name)).parameters["purpose"]
    assert parameter.annotation == "str | None"
    assert parameter.default is None
