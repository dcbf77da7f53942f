"""Every operation, asked with another tenant's ids: what is not yours looks like what is not there.

The operations are discovered, and so are the members of their payloads: a new operation is walked too, or
fails here until it is said what its members look like.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from cloister.errors import CloisterError, ConfigurationError
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation
from support.host_world import HostWorld, caller
from support.workbench import PlainAct, Workbench

SOURCE = """
from cloister.function import boolean, function

@function("NAME", output=boolean())
def check(age: int) -> bool:
    return age >= 18
"""
DIGEST = "ab" * 32
AMOUNTS = {"limit": 1, "approvals": 0}


def names(which: str) -> dict[str, Any]:
    """The ids of a tenant's things; `which` is in all of them, so that two sets differ in nothing else."""
    return {
        "key": f"key-{which}",
        "kid": f"key-{which}.1",
        "principal": f"principal-{which}",
        "group": f"group-{which}",
        "secret": f"secret-{which}",
        "policy": f"policy-{which}",
        "to": f"policy-{which}",
        "function": f"function-{which}",
        "issuer": f"https://{which}.example",
        "resource": f"key/key-{which}",
        "tenant": which,
    }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    bench = Workbench(tmp_path_factory.mktemp("host"))
    operator = bench.caller("operator", tenant="system")
    for tenant in ("theirs", "mine"):
        bench.call("tenant.create", {"tenant": tenant}, caller=operator)
    fill(bench, "theirs")
    yield bench
    bench.close()


def fill(bench: Workbench, tenant: str) -> None:
    """A tenant with one of everything."""
    admin, ids = bench.caller(tenant=tenant), names("theirs")
    for op, payload in (
        ("principal.create", {"principal": ids["principal"], "kind": "person"}),
        ("group.create", {"group": ids["group"]}),
        ("group.add", {"group": ids["group"], "principal": ids["principal"]}),
        ("key.create", {"key": ids["key"], "purpose": "seal"}),
        ("secret.put", {"secret": ids["secret"], "value": "v"}),
        ("policy.create", {"policy": ids["policy"], "plan": "vault", "alphabet": "0123456789", "length": 12}),
        ("issuer.create", {"issuer": ids["issuer"]}),
        (
            "principal.bind",
            {"principal": ids["principal"], "issuer": ids["issuer"], "claims": {"sub": "someone"}},
        ),
        ("grant.create", {"principal": ids["principal"], "action": "seal", "resource": ids["resource"]}),
    ):
        bench.call(op, payload, caller=admin)


def operations(bench: Workbench) -> Mapping[str, Operation]:
    return {**bench.services.operations(), **bench.parts.operations()}


def sample(kind: Any, name: str, ids: Mapping[str, Any]) -> Any:
    """A value of a member, as msgspec describes it; ids where the member's name says so."""
    info = msgspec.inspect
    if name in ids and isinstance(kind, info.StrType) and (chosen := named(kind, ids[name])):
        return chosen
    match kind:
        case info.UnionType():
            return sample(next(one for one in kind.types if not isinstance(one, info.NoneType)), name, ids)
        case info.IntType():
            return AMOUNTS.get(name, kind.ge if kind.ge is not None else 1)
        case info.BoolType():
            return False
        case info.FloatType():
            return 1.0
        case info.LiteralType():
            return kind.values[0]
        case info.ListType() | info.VarTupleType() | info.CollectionType():
            return [sample(kind.item_type, name.removesuffix("s"), ids)]
        case info.DictType():
            return {}
        case info.StructType():
            return {
                field.encode_name: sample(field.type, field.name, ids)
                for field in kind.fields
                if field.required
            }
        case info.AnyType() | info.RawType():
            return {}
        case info.StrType():
            text = TEXTS.get(name, "")
            return text if fits(kind, text) else fitting(kind)
    raise AssertionError(f"say in `sample` what a {type(kind).__name__} looks like")


TEXTS = {
    "action": "seal",
    "proposal": "0" * 32 + "-00000001",
    "digest": DIGEST,
    "act": "key.destroy",
    "delivery_id": "d" * 22,
    "alias": "prod",
    "sealed": "not-a-value",
    "encrypted_key": "A" * 54,
    "dek": "A" * 43,
    "job": "j" * 22,
}
CANDIDATES = (
    "a",
    "import-" + "A" * 22,
    "ab",
    "A" * 43,
    "AAAA",
    "0" * 16,
    DIGEST,
    "a.1",
    "x@prod",
    "1" * 22,
    "https://a.example",
    "a/b",
)


def named(kind: Any, name: str) -> str | None:
    """The id in the form that a member wants, if it wants this id at all."""
    return next((text for text in (name, f"{name}@prod") if fits(kind, text)), None)


def fits(kind: Any, text: str) -> bool:
    try:
        msgspec.convert(text, kind_to_type(kind))
    except msgspec.ValidationError:
        return False
    return True


def fitting(kind: Any) -> str:
    """Some text that the pattern of a member accepts."""
    for text in CANDIDATES:
        if fits(kind, text):
            return text
    raise AssertionError(f"add a text that {kind.pattern!r} accepts to TEXTS")


def kind_to_type(kind: Any) -> Any:
    from typing import Annotated

    return Annotated[
        str, msgspec.Meta(pattern=kind.pattern, min_length=kind.min_length, max_length=kind.max_length)
    ]


def payload_of(operation: Operation, ids: Mapping[str, Any]) -> dict[str, Any]:
    described = msgspec.inspect.type_info(operation.request_type)
    return {
        field.encode_name: sample(field.type, field.name, ids)
        for field in described.fields  # type: ignore[attr-defined]
        if field.required or field.name in ids
    }


class UndoneError(Exception):
    """Ends a walk's transaction, so that nothing stays of it."""


def outcome(bench: Workbench, who: Caller, op: str, payload: Mapping[str, Any]) -> Any:
    """What the caller is told: an error in full, or the shape of a result."""
    operation = operations(bench)[op]
    try:
        request = operation.parse(json.dumps(payload).encode())
        if operation.staged or operation.streamed:
            given = operation.handler(who, request, PlainAct(bench.store))
            # A streamed answer comes in parts; what is wrong with it shows with the first.
            result = msgspec.to_builtins(list(given) if isinstance(given, Iterator) else given)
        else:
            box: list[Any] = []
            try:
                with bench.store.begin() as tx:
                    box.append(msgspec.to_builtins(operation.handler(who, request, tx)))
                    raise UndoneError
            except UndoneError:
                [result] = box
    except CloisterError as error:
        return (type(error).__name__, str(error.args[0]), error.hint, error.code, error.retryable)
    return shape(result)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


def renamed(told: Any, which: str) -> Any:
    """Names in what is told are the caller's own words; only they may differ."""
    return json.loads(json.dumps(told).replace(which, "absent"))


EVERY = sorted(HostWorld.__init__.__globals__["build_services"].__globals__["Services"].__annotations__)


def all_operations() -> list[str]:
    """Collected without a host: the names are asked of one when the test runs."""
    return ["(every operation)"]


@pytest.mark.parametrize("right", ["every right", "no right"])
def test_another_tenants_ids_look_like_ids_of_nothing(bench: Workbench, right: str) -> None:
    who = caller("admin" if right == "every right" else "nobody", tenant="mine")
    if right == "every right":
        give_everything(bench)
    walked = {}
    for op, operation in operations(bench).items():
        told = []
        for which in ("theirs", "absent"):
            payload = payload_of(operation, names(which))
            operation.parse(json.dumps(payload).encode())
            told.append(renamed(outcome(bench, who, op, payload), which))
        assert told[0] == told[1], op
        walked[op] = told[0]
    assert len(walked) == len(operations(bench)) > 60


def test_the_walk_would_notice(bench: Workbench) -> None:
    """The same walk with ids of the caller's own tenant does see a difference, or it could not fail."""
    who = caller("admin", tenant="theirs")
    seen = 0
    for op in ("key.rotate", "principal.disable", "secret.delete", "group.delete", "issuer.delete"):
        operation = operations(bench)[op]
        told = [
            renamed(outcome(bench, who, op, payload_of(operation, names(which))), which)
            for which in ("theirs", "absent")
        ]
        seen += told[0] != told[1]
    assert seen == 5


def give_everything(bench: Workbench) -> None:
    from cloister_host.policy.actions import ACTIONS

    admin = bench.caller(tenant="mine")
    for action in sorted(ACTIONS):
        try:
            bench.call(
                "grant.create", {"principal": "admin", "action": action, "resource": "*"}, caller=admin
            )
        except ConfigurationError:
            continue


def test_another_tenants_credential_is_like_a_made_up_one(host: HostWorld) -> None:
    said = set()
    made_up = f"clk_{'0' * 16}_{'A' * 43}"
    for key, tenant in ((host.admin_key, "globex"), (made_up, "globex"), (host.admin_key, "nobody")):
        with pytest.raises(CloisterError) as caught:
            host.authenticate(key, tenant=tenant)
        said.add((type(caught.value), str(caught.value), caught.value.hint))
    assert len(said) == 1
