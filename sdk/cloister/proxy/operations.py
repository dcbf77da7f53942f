"""What the proxy can be asked: methods of `Client`, each under its own name.

Names, members and defaults come from the signatures; the table says which member stands in the path and
what the result is called. Keys are not brought or taken along here, and streams and objects are not JSON.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from inspect import Parameter
from typing import Any, Final

from cloister.client import Client
from cloister.errors import ConfigurationError
from cloister.mask import Mask, View
from cloister.proxy.messages import KINDS, OCTETS_KINDS, Kind, as_json, receipts, typed
from cloister.proxy.problems import RefusedError

__all__ = ["OPERATIONS", "Operation", "describe", "find"]

PREFIX: Final = "/v1/"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing the proxy can be asked.

    Attributes:
        name: Its place in the path.
        method: What answers it; takes the client first.
        in_path: The parameter that stands in the path behind the name.
        result: The member that holds the result; empty where the result has members of its own.
    """

    name: str
    method: Callable[..., Any]
    in_path: str = ""
    result: str = ""

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """What it takes, without the client."""
        return dict(list(inspect.signature(self.method).parameters.items())[1:])

    @cached_property
    def takes_values(self) -> bool:
        """Whether what it takes may be bytes."""
        return any(parameter.annotation in OCTETS_KINDS for parameter in self.parameters.values())

    def kind(self, name: str, *, octets: bool = False) -> Kind:
        """What a member holds."""
        parameter = self.parameters[name]
        if parameter.kind is Parameter.VAR_KEYWORD and parameter.annotation == "Any":
            return KINDS["Mapping[str, Any]"]
        kinds = {**KINDS, **OCTETS_KINDS} if octets else KINDS
        return kinds[parameter.annotation]

    def ask(self, client: Client, members: Mapping[str, Any], *, in_path: str) -> dict[str, Any]:
        """Carry it out.

        Args:
            client: As whom.
            members: The members of the body.
            in_path: What stands behind the name in the path.

        Raises:
            ConfigurationError: A member is missing, unknown or of another type.
            CloisterError: As the client's method does.
        """
        arguments = self.arguments(dict(members), in_path)
        positional = [
            arguments.pop(name)
            for name, parameter in self.parameters.items()
            if parameter.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
            and name in arguments
        ]
        for name, parameter in self.parameters.items():
            if parameter.kind is Parameter.VAR_KEYWORD:
                given = arguments.pop(name, {})
                if given.keys() & self.parameters.keys():
                    raise ConfigurationError(f"one of the {name} has a reserved name", hint="rename it")
                arguments |= given
        return self._answer(self.method(client, *positional, **arguments))

    def arguments(self, members: dict[str, Any], in_path: str) -> dict[str, Any]:
        """The members as the method takes them; raises `ConfigurationError`."""
        octets = self.takes_values and _asks_for_octets(members)
        if self.in_path:
            if self.in_path in members:
                raise ConfigurationError(f"`{self.in_path}` stands in the path, not in the body")
            members[self.in_path] = in_path
        unknown = members.keys() - self.parameters.keys()
        if unknown:
            raise ConfigurationError(
                f"`{self.name}` does not take every member of the body",
                hint=f"it takes {', '.join(name for name in self.parameters if name != self.in_path)}",
            )
        for name, parameter in self.parameters.items():
            if name in members:
                try:
                    members[name] = self.kind(name, octets=octets).read(members[name])
                except ValueError:
                    raise ConfigurationError(f"`{name}` has another type", hint="GET /openapi.json") from None
            elif parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD:
                raise ConfigurationError(f"`{self.name}` needs `{name}`")
        return members

    def _answer(self, result: Any) -> dict[str, Any]:
        if self.result == "value":
            return typed(result)
        if self.result:
            return {self.result: as_json(result), **receipts(result)}
        answer: dict[str, Any] = as_json(result) if result is not None else {}
        return answer


def _asks_for_octets(members: dict[str, Any]) -> bool:
    kind = members.pop("type", None)
    if kind is not None and kind != "octets":
        raise ConfigurationError(
            '`type` is "octets" where values are bytes', hint="leave it out for text and JSON"
        )
    return kind is not None


def mask(
    _client: Client, document: Any, *, views: Mapping[str, Any], default: Mapping[str, Any] | None = None
) -> Any:
    """Show of a document what its reader may see; what no path names is denied unless `default` says else.

    Args:
        document: Any JSON.
        views: RFC 6901 pointers or JSONPath to `{"show": "plain|masked|redacted|denied", "pattern": "..."}`.
        default: The view of everything else.
    """
    named = {path: _view(view) for path, view in views.items()}
    return Mask(named, default=_view(default or {"show": "denied"})).apply(document)


def _view(members: Any) -> View:
    if not isinstance(members, dict):
        raise ConfigurationError('a view is {"show": "plain|masked|redacted|denied", "pattern": "..."}')
    return View.from_mapping(members)


def _of(method: Callable[..., Any], result: str = "", *, in_path: str = "") -> Operation:
    return Operation(name=method.__name__, method=method, in_path=in_path, result=result)


OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation
    for operation in (
        _of(Client.seal, "sealed"),
        _of(Client.seal_many, "sealed"),
        _of(Client.open, "value"),
        _of(Client.open_many, "value"),
        _of(Client.open_column, "value"),
        _of(Client.public_key, in_path="key"),
        _of(Client.invoke, in_path="function"),
        _of(Client.invoke_batch, in_path="function"),
        _of(Client.start, in_path="function"),
        _of(Client.job, in_path="job"),
        _of(Client.wait, in_path="job"),
        _of(Client.cancel, in_path="job"),
        _of(Client.tokenize, "tokens", in_path="policy"),
        _of(Client.detokenize, "values", in_path="policy"),
        _of(mask, "document"),
        _of(Client.encrypt, "ciphertext"),
        _of(Client.encrypt_many, "ciphertexts"),
        _of(Client.decrypt, "data"),
        _of(Client.decrypt_many, "data"),
        _of(Client.mac, "mac"),
        _of(Client.sign, "signature"),
        _of(Client.verify),
        _of(Client.rewrap),
        _of(Client.random, "data"),
        _of(Client.call, "result", in_path="op"),
    )
}


def find(path: str) -> tuple[Operation, str]:
    """The operation that a path names, and what stands behind its name.

    Raises:
        RefusedError: It names none.
    """
    name, slash, rest = path.removeprefix(PREFIX).partition("/")
    operation = OPERATIONS.get(name) if path.startswith(PREFIX) else None
    if operation is None or bool(operation.in_path) != bool(rest) or bool(slash) != bool(rest) or "/" in rest:
        raise RefusedError(HTTPStatus.NOT_FOUND, "path", "there is nothing here", hint="GET /openapi.json")
    return operation, rest


def describe(*, version: str) -> dict[str, Any]:
    """The API description (OpenAPI 3.1)."""
    problem = {"description": "What went wrong (RFC 9457)"}
    checks = {
        path: {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
        for path, summary in {
            "/healthz": "The proxy is up",
            "/v1/attestation": "Appraise the host now: what was checked, and what was not",
            "/openapi.json": "This description",
        }.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cloister proxy", "version": version},
        "security": [{"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            **checks,
            **{
                _path(operation): {"post": {**_described(operation, problem)}}
                for operation in OPERATIONS.values()
            },
        },
    }


def _path(operation: Operation) -> str:
    return f"{PREFIX}{operation.name}" + (f"/{{{operation.in_path}}}" if operation.in_path else "")


def _described(operation: Operation, problem: Mapping[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(operation.method) or operation.name
    in_body = [name for name in operation.parameters if name != operation.in_path]
    schema = {
        "type": "object",
        "properties": {name: dict(operation.kind(name).schema) for name in in_body}
        | ({"type": {"const": "octets"}} if operation.takes_values else {}),
        "required": [
            name
            for name in in_body
            if operation.parameters[name].default is Parameter.empty
            and operation.parameters[name].kind is not Parameter.VAR_KEYWORD
        ],
        "additionalProperties": False,
    }
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": text.partition("\n")[0],
        "requestBody": {"content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "Done"}, "default": problem},
    }
    if operation.in_path:
        described["parameters"] = [
            {"name": operation.in_path, "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return described
