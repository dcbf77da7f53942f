"""Payloads off the wire: what is not exactly right is refused, and never repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError, DeniedError, IdentityError
from cloister_host.operations import Operation, Request
from support.host_world import HostWorld, caller


def payloads_without_rights() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("principal.rotate_key", {"principal": "app"}),
        ("principal.disable", {"principal": "app"}),
        ("grant.create", {"principal": "app", "action": "seal", "resource": "*"}),
        ("grant.delete", {"principal": "app", "action": "seal", "resource": "*"}),
        ("key.create", {"key": "ssn", "purpose": "seal"}),
        ("key.rotate", {"key": "ssn"}),
        ("key.public", {"key": "ssn"}),
        ("key.data_key", {"key": "ssn"}),
        ("key.wrap", {"key": "ssn", "dek": "A" * 43}),
        ("key.unwrap", {"kid": "ssn.1", "encrypted_key": "A" * 54}),
        ("token.tokenize", {"policy": "pins", "values": ["1"]}),
        ("token.detokenize", {"policy": "pins", "tokens": ["1"]}),
        ("secret.put", {"secret": "s", "value": "v"}),
        ("secret.delete", {"secret": "s"}),
    ]


@pytest.mark.parametrize(("op", "payload"), payloads_without_rights(), ids=lambda value: str(value)[:24])
def test_without_rights_what_exists_and_what_does_not_look_alike(
    host: HostWorld, op: str, payload: dict[str, Any]
) -> None:
    """A principal without rights, in the tenant that has the things and in one that has nothing."""
    host.principal("app")
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    host.call(host.admin, "secret.put", secret="s", value="v")
    answers = set()
    for tenant in ("acme", "globex"):
        with pytest.raises(DeniedError) as caught:
            host.call(caller("nobody", tenant=tenant), op, **payload)
        answers.add((str(caught.value), caught.value.retryable))
    assert len(answers) == 1


def test_every_operation_refuses_unknown_members_and_changes_nothing(host: HostWorld) -> None:
    for name, operation in host.operations.items():
        with pytest.raises(ConfigurationError) as caught:
            operation.parse(b'{"quite-particular-member": 1}')
        assert "quite-particular-member" not in str(caught.value), name


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b"7", b'"x"', b"{", b"\xff", b'"\\ud800"', b"[" * 9999]
)
def test_every_operation_refuses_what_is_no_object(host: HostWorld, payload: bytes) -> None:
    for operation in host.operations.values():
        with pytest.raises(ConfigurationError):
            operation.parse(payload)


@pytest.mark.parametrize(
    ("op", "payload", "member"),
    [
        ("key.create", {"key": "ssn", "purpose": "hunter2"}, "purpose"),
        ("key.create", {"key": "Hunter2", "purpose": "seal"}, "key"),
        ("key.create", {"key": "ssn\n", "purpose": "seal"}, "key"),
        ("key.create", {"key": "", "purpose": "seal"}, "key"),
        ("key.create", {"key": "a" * 64, "purpose": "seal"}, "key"),
        ("key.create", {"key": "1a", "purpose": "seal"}, "key"),
        ("key.unwrap", {"kid": "ssn.0", "encrypted_key": "A" * 54}, "kid"),
        ("key.unwrap", {"kid": "ssn.1\n", "encrypted_key": "A" * 54}, "kid"),
        ("key.unwrap", {"kid": "ssn.1", "encrypted_key": "hunter2"}, "encrypted_key"),
        ("key.wrap", {"key": "ssn", "dek": "A" * 44}, "dek"),
        ("key.data_key", {"key": "ssn", "key_context": {"a": "hunter2" * 1000}}, "key_context"),
        ("key.data_key", {"key": "ssn", "key_context": {str(i): "" for i in range(65)}}, "key_context"),
        ("value.open", {"values": []}, "values"),
        ("value.open", {"values": [{"sealed": "x"}] * 10_001}, "values"),
        ("value.open", {"values": [{"sealed": "x", "contxt": {}}]}, "values"),
        ("audit.list", {"limit": 0}, "limit"),
        ("audit.list", {"limit": 1001}, "limit"),
        ("audit.list", {"after": "a\x00b"}, "after"),
        ("audit.list", {"after": "a" * 513}, "after"),
        ("principal.create", {"principal": "app", "kind": "function"}, "kind"),
        ("grant.create", {"principal": "app", "action": "a" * 65, "resource": "*"}, "action"),
        ("grant.create", {"principal": "app", "action": "seal", "resource": "x" * 321}, "resource"),
    ],
)
def test_a_wrong_member_is_named_and_its_value_is_not(
    host: HostWorld, op: str, payload: dict[str, Any], member: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        host.operations[op].parse(json.dumps(payload).encode())
    assert member in str(caught.value)
    assert "hunter2" not in str(caught.value).lower()
    # Nothing to quote it in a traceback either.
    assert caught.value.__context__ is None


def test_data_that_is_no_canonical_base64url_is_refused(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    who = host.principal("app", ("wrap", "*"))
    with pytest.raises(ConfigurationError, match="base64url"):
        host.call(who, "key.wrap", key="ssn", dek="A" * 42 + "B")


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> HostWorld:
    return HostWorld(Path(tmp_path_factory.mktemp("host")))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_sent_only_our_errors_come_out(shared_host: HostWorld, data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(sorted(shared_host.operations)))
    fields = msgspec.structs.fields(shared_host.operations[op].request_type)
    good: dict[str, Any] = {
        "key": "ssn",
        "principal": "admin",
        "purpose": "seal",
        "kid": "ssn.1",
        "secret": "s",
    }
    payload = {field.name: data.draw(json_values | st.just(good.get(field.name))) for field in fields}
    try:
        raw = json.dumps(payload).encode()
        operation = shared_host.operations[op]
        request = operation.parse(raw)
        with shared_host.store.begin() as tx:
            operation.handler(shared_host.admin, request, tx)
    except CloisterError as error:
        assert not isinstance(error, IdentityError)  # noqa: PT017 (most payloads are refused)


def test_an_operation_says_what_it_takes() -> None:
    class Ping(Request):
        text: str

    operation = Operation(Ping, lambda _caller, request, _tx: request, effect=False)
    assert operation.parse(b'{"text":"x"}').text == "x"
    assert not operation.staged
