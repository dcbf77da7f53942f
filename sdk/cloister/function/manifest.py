"""The manifest: what a function is given, what it may reach and what it may let out, as canonical JSON.

It is derived from the decorator, stored in the bundle and therefore part of the digest that grants and
receipts name. The host enforces the manifest, never the code's own word. Format: SPEC.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import rfc8785

from cloister.errors import ConfigurationError
from cloister.function.egress import Delivery, OriginRule
from cloister.function.limits import Budget, Limits
from cloister.function.names import check_name
from cloister.function.outputs import OutputClass, Record, SealedUnder, Token, output_from_manifest
from cloister.function.schema import is_text

__all__ = ["Input", "Manifest", "Need"]

MAX_MANIFEST_BYTES: Final = 65536
_FORMAT: Final = 1
_ENTRYPOINT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}:[A-Za-z_][A-Za-z0-9_]{0,127}")
_ERROR_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MAX_INPUTS: Final = 32
_MAX_ORIGINS: Final = 8
_MAX_ERRORS: Final = 16


class Need(NamedTuple):
    """A grant that the function's digest must have before it can be invoked."""

    action: str
    resource: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One parameter of the function; `sealed` is None for plain JSON. In a batch, one column."""

    name: str
    type: Mapping[str, Any]
    sealed: SealedUnder | None = None
    required: bool = True

    def to_manifest(self) -> dict[str, Any]:
        """Describe this input in JSON."""
        described: dict[str, Any] = {"name": self.name, "type": dict(self.type), "required": self.required}
        if self.sealed is not None:
            described["sealed"] = self.sealed.to_manifest()
        return described

    @classmethod
    def from_manifest(cls, described: Mapping[str, Any]) -> Input:
        """Rebuild an input from a manifest."""
        arguments = dict(described)
        if "sealed" in arguments:
            sealed = output_from_manifest(arguments["sealed"])
            if not isinstance(sealed, SealedUnder):
                raise ConfigurationError("an input is sealed under no key", hint="build the bundle again")
            arguments["sealed"] = sealed
        return cls(**arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything the host needs to know about a function, and enforces."""

    name: str
    entrypoint: str
    inputs: tuple[Input, ...]
    output: OutputClass
    batch: bool = False
    egress: Mapping[str, OriginRule] = field(default_factory=dict)
    delivery: Delivery | None = None
    errors: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    budget: Budget | None = None
    logs: str | None = None
    progress: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "function")
        flags: list[object] = [self.batch, self.progress, *(given.required for given in self.inputs)]
        values: list[object] = list(self.settings.values())
        if not all(isinstance(flag, bool) for flag in flags) or not all(isinstance(v, str) for v in values):
            raise ConfigurationError(
                "a flag or setting has the wrong type", hint="flags are bool, settings text"
            )
        if not _ENTRYPOINT.fullmatch(self.entrypoint):
            raise ConfigurationError("the entrypoint cannot be used", hint="write 'module:function'")
        if (
            len(self.inputs) > _MAX_INPUTS
            or len(self.egress) > _MAX_ORIGINS
            or len(self.errors) > _MAX_ERRORS
        ):
            raise ConfigurationError(
                "the function declares too much",
                hint=f"at most {_MAX_INPUTS} inputs, {_MAX_ORIGINS} origins and {_MAX_ERRORS} errors",
            )
        names = [given.name for given in self.inputs]
        if not all(name.isidentifier() for name in (*names, *self.egress)) or len(
            {*names, *self.egress}
        ) != len(names) + len(self.egress):
            raise ConfigurationError("a parameter name is repeated or not an identifier", hint="rename it")
        if not all(_ERROR_NAME.fullmatch(name) for name in self.errors):
            raise ConfigurationError("a declared error has no usable name", hint="use plain class names")
        if self.logs is not None:
            check_name(self.logs, "key for logs")
        self._check_contexts()
        self._check_subject()
        self._check_output()

    def _check_contexts(self) -> None:
        plain = {given.name for given in self.inputs if given.sealed is None}
        for missing in sorted(self.output_context - self.input_context - plain):
            raise ConfigurationError(
                f"the output is bound to {missing!r}, which no input carries",
                hint=f"bind an input to it, or take a parameter `{missing}: str`",
            )
        for given in self.inputs:
            if given.sealed is None and given.name in self.bound_context and not self._is_text(given):
                raise ConfigurationError(
                    f"the parameter {given.name} is also a context and must be text",
                    hint=f"annotate it as {'list[str]' if self.batch else 'str'}",
                )

    def _check_output(self) -> None:
        if any(
            isinstance(kind, SealedUnder) and (kind.authenticated or kind.sealed_by) for kind in self.released
        ):
            raise ConfigurationError(
                "authenticated and sealed_by are for inputs", hint="leave them out of output="
            )

    def _check_subject(self) -> None:
        subject = None if self.budget is None else self.budget.subject
        texts = {given.name for given in self.inputs if given.sealed is None and self._is_text(given)}
        if subject is not None and subject not in self.bound_context | texts:
            raise ConfigurationError(
                f"the subject {subject!r} of budget() is neither a context nor a text parameter",
                hint="bind an input to it: sealed(key, context=[...])",
            )

    def _is_text(self, given: Input) -> bool:
        return is_text(given.type.get("items", {}) if self.batch else given.type)

    @property
    def input_context(self) -> frozenset[str]:
        """Names that sealed inputs are bound to."""
        return frozenset(name for given in self.inputs if given.sealed for name in given.sealed.context or ())

    @property
    def output_context(self) -> frozenset[str]:
        """Names that sealed outputs are bound to."""
        return frozenset(
            name
            for member in self.released
            if isinstance(member, SealedUnder)
            for name in member.context or ()
        )

    @property
    def bound_context(self) -> frozenset[str]:
        """Names that some ciphertext, in or out, is bound to; one name is one value in an invocation."""
        return self.input_context | self.output_context

    @property
    def released(self) -> tuple[OutputClass, ...]:
        """The output class, or those of a record's fields."""
        return tuple(self.output.fields.values()) if isinstance(self.output, Record) else (self.output,)

    @property
    def needs(self) -> tuple[Need, ...]:
        """The grants this function's digest needs, each once."""
        needs = [Need("use-in-function", f"key/{given.sealed.key}") for given in self.inputs if given.sealed]
        for member in self.released:
            if isinstance(member, SealedUnder):
                needs.append(Need("seal", f"key/{member.key}"))
            elif isinstance(member, Token):
                needs.append(Need("tokenize", f"policy/{member.policy}"))
        for rule in self.egress.values():
            needs.append(Need("egress", f"origin/{rule.url}"))
            needs.extend(Need("use-secret", f"secret/{secret}") for secret in rule.secret_names)
        if self.logs is not None:
            needs.append(Need("seal", f"key/{self.logs}"))
        if self.delivery is not None:
            needs.append(Need("deliver", f"origin/{self.delivery.url}"))
        return tuple(dict.fromkeys(needs))

    def to_json(self) -> dict[str, Any]:
        """Describe the function in JSON."""
        return {
            "manifest": _FORMAT,
            "name": self.name,
            "entrypoint": self.entrypoint,
            "batch": self.batch,
            "inputs": [given.to_manifest() for given in self.inputs],
            "output": self.output.to_manifest(),
            "egress": {name: rule.to_manifest() for name, rule in self.egress.items()},
            "delivery": None if self.delivery is None else self.delivery.to_manifest(),
            "errors": list(self.errors),
            "limits": self.limits.to_manifest(),
            "budget": None if self.budget is None else self.budget.to_manifest(),
            "logs": self.logs,
            "progress": self.progress,
            "settings": dict(self.settings),
        }

    def canonical(self) -> bytes:
        """The manifest as the bytes that are stored and compared (JCS, RFC 8785)."""
        return rfc8785.dumps(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest from hostile bytes: only the canonical form of a valid manifest is accepted.

        Raises:
            ConfigurationError: Anything else.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise ConfigurationError("the manifest is too large", hint=f"at most {MAX_MANIFEST_BYTES} bytes")
        try:
            parsed = _from_json(json.loads(data))
            same = parsed.canonical() == data
        except (
            TypeError,
            KeyError,
            ValueError,
            AttributeError,
            RecursionError,
            rfc8785.CanonicalizationError,
        ):
            same = False
        # Rebuilding it and comparing bytes refuses unknown members, duplicates and other spellings at once.
        if not same:
            raise ConfigurationError(
                "the manifest is not valid", hint="build it with `cloister function build`"
            )
        return parsed


def _from_json(described: Mapping[str, Any]) -> Manifest:
    delivery, budget = described["delivery"], described["budget"]
    return Manifest(
        name=described["name"],
        entrypoint=described["entrypoint"],
        batch=described["batch"],
        inputs=tuple(Input.from_manifest(given) for given in described["inputs"]),
        output=output_from_manifest(described["output"]),
        egress={name: OriginRule.from_manifest(rule) for name, rule in described["egress"].items()},
        delivery=None if delivery is None else Delivery.from_manifest(delivery),
        errors=tuple(described["errors"]),
        limits=Limits(**described["limits"]),
        budget=None if budget is None else Budget.from_manifest(budget),
        logs=described["logs"],
        progress=described["progress"],
        settings=dict(described["settings"]),
    )
