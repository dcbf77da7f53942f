"""The decorator: declare what a function needs, and leave the function an ordinary function."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from cloister.errors import ConfigurationError
from cloister.function.egress import Delivery, OriginRule
from cloister.function.limits import Budget, Limits
from cloister.function.manifest import Input, Manifest
from cloister.function.names import check_name
from cloister.function.outputs import OutputClass, SealedUnder
from cloister.function.schema import describe_type

__all__ = ["Declaration", "declaration_of", "function"]

_ATTRIBUTE: Final = "__cloister_function__"
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What the decorator was told; the annotations are read when a manifest is asked for."""

    name: str
    output: OutputClass
    batch: bool
    egress: Mapping[str, OriginRule]
    deliver: Delivery | None
    raises: tuple[type[BaseException], ...]
    limits: Limits
    budget: Budget | None
    logs: str | None
    progress: bool

    def manifest(self, implementation: Callable[..., Any], settings: Mapping[str, str]) -> Manifest:
        """Derive the manifest of the decorated function, with settings filled in.

        Raises:
            ConfigurationError: A parameter, its type, the return type or a setting does not fit.
        """
        hints = _hints(implementation)
        inputs, injected = self._parameters(implementation, hints)
        if injected != self.egress.keys():
            odd = min(injected ^ self.egress.keys())
            raise ConfigurationError(
                f"{odd!r} is not both a keyword-only parameter and a declared origin",
                hint='for egress={"partner": origin(...)} write def f(value, *, partner: Origin)',
            )
        self._check_return(hints)
        used: dict[str, str] = {}
        return Manifest(
            name=self.name,
            entrypoint=f"{implementation.__module__}:{implementation.__name__}",
            inputs=inputs,
            output=self.output,
            batch=self.batch,
            egress={name: rule.resolved(settings, used=used) for name, rule in self.egress.items()},
            delivery=None if self.deliver is None else self.deliver.resolved(settings, used=used),
            errors=tuple(sorted(error.__name__ for error in self.raises)),
            limits=self.limits,
            budget=self.budget,
            logs=self.logs,
            progress=self.progress,
            settings=used,
        )

    def _parameters(
        self, implementation: Callable[..., Any], hints: Mapping[str, Any]
    ) -> tuple[tuple[Input, ...], set[str]]:
        inputs: list[Input] = []
        injected: set[str] = set()
        for parameter in inspect.signature(implementation).parameters.values():
            name = parameter.name
            if parameter.kind is parameter.KEYWORD_ONLY:
                injected.add(name)
            elif parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                raise ConfigurationError(
                    f"the parameter {name} has no name of its own",
                    hint="name each input; no *args, **kwargs or '/'",
                )
            elif name not in hints:
                raise ConfigurationError(
                    f"the parameter {name} has no type", hint=f"annotate it, e.g. {name}: str"
                )
            else:
                inputs.append(self._input(parameter, hints[name]))
        return tuple(inputs), injected

    def _input(self, parameter: inspect.Parameter, hint: Any) -> Input:
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        markers = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, SealedUnder)]
        if self.batch and get_origin(plain) is not list:
            raise ConfigurationError(
                f"the parameter {parameter.name} of a batch function is not a column",
                hint=f"annotate it as a list, e.g. {parameter.name}: list[str]",
            )
        required = parameter.default is parameter.empty
        if len(markers) > 1 or (markers and not required):
            raise ConfigurationError(
                f"the sealed parameter {parameter.name} has two keys or a default",
                hint="one sealed(...), no default",
            )
        return Input(
            name=parameter.name,
            type=describe_type(plain),
            sealed=markers[0] if markers else None,
            required=required,
        )

    def _check_return(self, hints: Mapping[str, Any]) -> None:
        if "return" not in hints:
            raise ConfigurationError(f"{self.name} has no return type", hint="annotate it, e.g. -> bool")
        result = hints["return"]
        if self.batch:
            if get_origin(result) is not list:
                raise ConfigurationError(
                    f"the batch function {self.name} does not return a column",
                    hint="return a list, e.g. -> list[bool]",
                )
            result = get_args(result)[0]
        if not self.output.accepts(describe_type(result)):
            raise ConfigurationError(
                f"the return type of {self.name} is not of its output class {self.output.kind}",
                hint="boolean: bool; number: int, float; enum, text, token: str; record: its fields",
            )


def function(
    name: str,
    *,
    output: OutputClass,
    batch: bool = False,
    egress: Mapping[str, OriginRule] | None = None,
    deliver: Delivery | None = None,
    raises: Sequence[type[BaseException]] = (),
    limits: Limits | None = None,
    budget: Budget | None = None,
    logs: str | None = None,
    progress: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a confidential function. It stays an ordinary function: call it, test it, type-check it.

    Args:
        name: What callers invoke and grants name.
        output: What may leave: `sealed(key)`, `boolean()`, `number(...)`, `enum(...)`, `text(...)`,
            `token(policy)` or `record(field=...)`.
        batch: Columns in, a column out: every input is a list, one element per row, and so is the result.
            Rows that are null or do not open never reach the function.
        egress: Keyword-only parameter name to the origin that is passed in it.
        deliver: Where the result is delivered after it has been let out.
        raises: Errors of your own whose class name callers may see. Others outside the standard
            library show as `Exception`; messages never leave.
        limits: Time and memory of one invocation.
        budget: How many answers may leave, from `budget(...)`.
        logs: Key that what the function prints and logs is sealed under, for `cloister function logs`;
            without it that is thrown away.
        progress: Whether the percentage that `progress()` tells leaves, for callers who run it as a job.

    Raises:
        ConfigurationError: At once for a bad name or argument; for bad annotations when the bundle is built.
    """
    declaration = Declaration(
        name=check_name(name, "function"),
        output=_expect(output, typing.get_args(OutputClass), "output", "boolean()"),
        batch=batch,
        egress={
            key: _expect(rule, OriginRule, "egress", "origin(...)") for key, rule in (egress or {}).items()
        },
        deliver=None if deliver is None else _expect(deliver, Delivery, "deliver", "deliver(...)"),
        raises=tuple(raises),
        limits=limits or Limits(),
        budget=None if budget is None else _expect(budget, Budget, "budget", 'budget(period="day", ...)'),
        logs=None if logs is None else check_name(logs, "key for logs"),
        progress=_expect(progress, bool, "progress", "True"),
    )

    def mark(implementation: Callable[P, R]) -> Callable[P, R]:
        if not inspect.isfunction(implementation) or inspect.iscoroutinefunction(implementation):
            raise ConfigurationError(
                f"{name} is not a plain function",
                hint="decorate a `def` at the top of a module, not a class or async def",
            )
        setattr(implementation, _ATTRIBUTE, declaration)
        return implementation

    return mark


def declaration_of(candidate: object) -> Declaration | None:
    """The declaration of a decorated function, or None for anything else."""
    found = getattr(candidate, _ATTRIBUTE, None) if inspect.isfunction(candidate) else None
    return found if isinstance(found, Declaration) else None


T = TypeVar("T")


def _expect(value: T, kind: Any, what: str, example: str) -> T:
    if not isinstance(value, kind):
        raise ConfigurationError(f"{what}= was given something else", hint=f"for example {what}={example}")
    return value


def _hints(implementation: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(implementation, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"an annotation names {error.name!r}, which the module does not define",
            hint="import it at the top, outside TYPE_CHECKING",
        ) from None
