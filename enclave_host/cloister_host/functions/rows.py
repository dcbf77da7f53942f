"""From what a caller sends to what a function is given: scalar calls and batches alike, as columns.

A scalar call is a batch of one row. A name is one value in an invocation: the context `account` of a
sealed PIN and the plain parameter `account` beside it can never differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from cloister.errors import ConfigurationError, OpenError
from cloister.function.manifest import Input, Manifest
from cloister.function.schema import allows_null, fits
from cloister_host.functions.messages import Invoke

__all__ = ["Rows"]


@dataclass(slots=True)
class Rows:
    """The inputs of one invocation.

    Attributes:
        count: Number of rows.
        columns: Values by parameter name; sealed until `opened`.
        contexts: Values by context name.
        live: Indexes of the rows that the function is given.
        errors: Error code by index of the rows that it is not given.
    """

    manifest: Manifest
    count: int
    columns: dict[str, Sequence[Any]] = field(repr=False)
    contexts: dict[str, Sequence[str | None]] = field(repr=False)
    live: list[int] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)

    @classmethod
    def gather(cls, manifest: Manifest, request: Invoke) -> Rows:
        """Check what was sent against the manifest.

        Raises:
            ConfigurationError: Something is missing, unknown, contradictory or not of its type.
        """
        columns, contexts = _as_columns(manifest, request)
        inputs = {given.name: given for given in manifest.inputs}
        if columns.keys() - inputs.keys() or contexts.keys() - manifest.bound_context:
            raise ConfigurationError("the call has an input or context too many", hint=_hint(manifest))
        # (1) One name, one value.
        for name in manifest.bound_context & {n for n, given in inputs.items() if given.sealed is None}:
            given_twice = name in columns and name in contexts
            if given_twice and list(columns[name]) != list(contexts[name]):
                raise ConfigurationError(
                    f"the input {name} and the context {name} differ", hint="give it once"
                )
            if name in columns or name in contexts:
                columns[name] = contexts[name] = columns.get(name) or contexts.get(name, ())
        # (2) Everything is there, as many times as there are rows.
        required = {n for n, given in inputs.items() if given.required}
        if required - columns.keys() or manifest.bound_context - contexts.keys():
            raise ConfigurationError("the call lacks an input or a context", hint=_hint(manifest))
        lengths = {len(column) for column in (*columns.values(), *contexts.values())} or {1}
        if len(lengths) > 1:
            raise ConfigurationError("the columns differ in length", hint="one element a row in each")
        # (3) Nulls set aside, and plain values of their declared types.
        rows = cls(manifest, lengths.pop(), columns, contexts)
        rows._set_nulls_aside()
        for given in manifest.inputs:
            if given.sealed is None:
                rows._check_plain(given)
        return rows

    def replace(self, given: Input, opened: Sequence[Any]) -> None:
        """Put opened values (or the errors they gave) in the place of the sealed ones, for live rows."""
        column = list(self.columns[given.name])
        for index, value in zip(list(self.live), opened, strict=True):
            column[index] = value
            if isinstance(value, OpenError):
                self.errors[index] = value.code
            elif not fits(self._row_type(given), value):
                self.errors[index] = "function"
        self.columns[given.name] = column
        self.live = [index for index in self.live if index not in self.errors]

    def context(self, names: Sequence[str] | None) -> list[dict[str, str]] | None:
        """What each live row is bound to; None for a value without context."""
        if names is None:
            return None
        return [{name: str(self.contexts[name][index]) for name in names} for index in self.live]

    def sealed(self, given: Input) -> list[Any]:
        """A sealed column's values, for live rows."""
        return [self.columns[given.name][index] for index in self.live]

    def subjects(self, name: str | None) -> list[str]:
        """Whom each live row is about; without a name nobody in particular."""
        if name is None:
            return [""] * len(self.live)
        column = self.contexts.get(name) or self.columns.get(name) or ()
        # A text parameter that was left out has its default: one subject for all who do so.
        return [str(column[index]) if column else "" for index in self.live]

    def leave_out(self, positions: Sequence[int], code: str) -> None:
        """Give an error to some of the live rows, by their position among these."""
        self.errors |= {self.live[position]: code for position in positions}
        self.live = [index for index in self.live if index not in self.errors]

    def spread(self, column: Sequence[Any]) -> list[Any]:
        """A column of the live rows over all rows, with null for the others."""
        spread: list[Any] = [None] * self.count
        for index, value in zip(self.live, column, strict=True):
            spread[index] = value
        return spread

    def inputs(self) -> dict[str, Any]:
        """What the function is called with."""
        if not self.manifest.batch:
            return {name: column[0] for name, column in self.columns.items()}
        return {name: [column[index] for index in self.live] for name, column in self.columns.items()}

    def _set_nulls_aside(self) -> None:
        nulls: set[int] = set()
        if self.manifest.batch:
            for given in self.manifest.inputs:
                if given.sealed is not None or not allows_null(self._row_type(given)):
                    column = self.columns.get(given.name, ())
                    nulls.update(index for index, value in enumerate(column) if value is None)
            for bound in self.contexts.values():
                nulls.update(index for index, value in enumerate(bound) if value is None)
        self.live = [index for index in range(self.count) if index not in nulls]

    def _check_plain(self, given: Input) -> None:
        column, row_type = self.columns.get(given.name), self._row_type(given)
        if column is not None and not all(fits(row_type, column[index]) for index in self.live):
            raise ConfigurationError(
                f"the input {given.name} is not of its declared type", hint=_hint(self.manifest)
            )

    def _row_type(self, given: Input) -> Mapping[str, Any]:
        items: Mapping[str, Any] = given.type.get("items", {}) if self.manifest.batch else given.type
        return items


def _as_columns(
    manifest: Manifest, request: Invoke
) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[str | None]]]:
    if manifest.batch:
        if request.columns is UNSET or request.inputs is not UNSET:
            raise ConfigurationError("this is a batch function", hint="send columns, one list an input")
        if any(isinstance(value, str) for value in request.context.values()):
            raise ConfigurationError(
                "the context of a batch is not a column", hint="send one list a context name"
            )
        contexts = {n: value for n, value in request.context.items() if not isinstance(value, str)}
        return dict(request.columns), dict(contexts)
    if request.inputs is UNSET or request.columns is not UNSET:
        raise ConfigurationError("this function takes one set of inputs", hint="send inputs, not columns")
    if not all(isinstance(value, str) for value in request.context.values()):
        raise ConfigurationError("a context is not text", hint="send one text a context name")
    return (
        {name: [value] for name, value in request.inputs.items()},
        {name: [value] for name, value in request.context.items() if isinstance(value, str)},
    )


def _hint(manifest: Manifest) -> str:
    inputs = ", ".join(given.name for given in manifest.inputs)
    context = ", ".join(sorted(manifest.bound_context))
    return f"inputs: {inputs or 'none'}; context: {context or 'none'}"
