"""A remote function as it is declared: its SQL side, and the confidential batch function behind it."""

from __future__ import annotations

import inspect
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_type_hints

from cloister.columns import Column, context_text
from cloister.errors import ConfigurationError, FunctionError
from cloister.faas import FunctionName, Invoker, idempotency_key
from cloister_gcp.ddl import create_function
from cloister_gcp.request import FUNCTION, RemoteRequest
from cloister_gcp.types import CONTEXT_TYPES, MALFORMED, MAX_CONTEXT_CHARS, SqlType, sql_type

__all__ = ["Declaration", "OnRowError", "signature_of"]

OnRowError = Literal["null", "fail"]

BATCH_ROWS: Final = 10_000
BATCH_CHARS: Final = 8 * 1024 * 1024
"""At most so much goes to the enclave in one call, so that memory stays bounded there and here."""
_CUT: Final = f"{BATCH_ROWS} rows, {BATCH_CHARS} characters"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED: Final = frozenset({"context", "idempotency_key"})
_EMPTY: Final = frozenset({"RESUME", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "NOP", "RETURN_GENERATOR"})

log = logging.getLogger("cloister.gcp")

Row = tuple[int, list[Any]]
"""Position in the request, and what the enclave is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A remote function: its SQL side, and the confidential batch function behind it.

    Attributes:
        name: What `user_defined_context` calls it.
        function: The confidential function.
        args: SQL arguments in order.
        context: Arguments that the sealed ones are bound to.
        returns: Type of the result.
        on_row_error: What a row that does not open does.
    """

    name: str
    function: FunctionName
    args: Mapping[str, SqlType]
    context: tuple[str, ...]
    returns: SqlType
    on_row_error: OnRowError

    def __post_init__(self) -> None:
        if not self.args:
            raise ConfigurationError("a remote function has at least one argument")
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError("the name of a remote function cannot be used", hint="a-z, 0-9 and '_'")
        for name in self.args:
            if not _NAME.fullmatch(name) or name in _RESERVED:
                raise ConfigurationError(
                    f"the argument name {name!r} cannot be used", hint="use a-z, 0-9 and '_'"
                )
        for name in self.context:
            given = self.args.get(name)
            if given is None or given.python not in CONTEXT_TYPES or given.nullable:
                raise ConfigurationError(
                    f"the context {name!r} is no argument of type str, int, bool or date",
                    hint="declare it as an argument that is never NULL",
                )
        if self.on_row_error not in {"null", "fail"}:
            raise ConfigurationError("on_row_error is 'null' or 'fail'")

    @classmethod
    def of(
        cls,
        function: str,
        *,
        args: Mapping[str, Any],
        returns: Any,
        context: Sequence[str],
        on_row_error: OnRowError,
        name: str | None,
    ) -> Declaration:
        """Make one of types as they are written: Python types, annotations or names of SQL types."""
        parsed = FunctionName.parse(function)
        return cls(
            name=parsed.name.replace("-", "_") if name is None else name,
            function=parsed,
            args={arg: sql_type(kind, f"argument {arg!r}") for arg, kind in args.items()},
            context=tuple(context),
            returns=sql_type(returns, "`returns`"),
            on_row_error=on_row_error,
        )

    def ddl(self, function: str, *, connection: str, endpoint: str, max_batching_rows: int = 10_000) -> str:
        """The statement that makes this endpoint an SQL function.

        Args:
            function: `dataset.name` or `project.dataset.name`.
            connection: `location.connection` or `project.location.connection`.
            endpoint: Where it is served, https.
            max_batching_rows: Rows a request, so calls to the enclave a query.

        Raises:
            ConfigurationError: A name or the endpoint cannot be used.
        """
        return create_function(
            function,
            args={name: kind.name for name, kind in self.args.items()},
            returns=self.returns.name,
            connection=connection,
            endpoint=endpoint,
            max_batching_rows=max_batching_rows,
            context={FUNCTION: self.name},
        )

    def replies(self, request: RemoteRequest, invoker: Invoker) -> list[Any]:
        """Answer one request of BigQuery: as many replies as calls.

        Rows go to the enclave in one call, or in several one after the other if there are very many. A row
        with a NULL in it answers NULL, unless the argument was declared as one that may be. A row that is
        malformed or does not open answers NULL or fails the query, as declared. An outage is never a NULL:
        it raises, and BigQuery tries again. Repeated requests get the same answers, and have their effect
        once.

        Raises:
            CloisterError: The query fails, with a message that carries no data.
        """
        if any(len(call) != len(self.args) for call in request.calls):
            raise ConfigurationError(
                f"a call has another number of arguments than the {len(self.args)} declared",
                hint="make the SQL function anew: cloister gcp ddl",
            )
        replies: list[Any] = [None] * len(request.calls)
        failed: Counter[str] = Counter()
        for number, batch in enumerate(_batches(self._rows(request, failed))):
            failed += self._invoke(request, number, batch, replies, invoker)
        if failed:
            counts = ", ".join(f"{code}: {count}" for code, count in sorted(failed.items()))
            if self.on_row_error == "fail":
                raise FunctionError(
                    f"{failed.total()} of {len(request.calls)} rows failed ({counts})",
                    hint="on_row_error='null' shows which",
                )
            log.warning(
                "rows failed and answered NULL: %s",
                counts,
                extra={"rows": len(request.calls), "rows_failed": failed.total()},
            )
        return replies

    def _rows(self, request: RemoteRequest, failed: Counter[str]) -> Iterator[Row]:
        """Rows that go to the enclave; those that cannot are counted."""
        kinds = tuple(self.args.values())
        for index, call in enumerate(request.calls):
            if any(value is None and not kind.nullable for value, kind in zip(call, kinds, strict=True)):
                continue
            try:
                yield index, self._row(call, kinds)
            except ValueError:
                failed[MALFORMED] += 1

    def _row(self, call: Sequence[Any], kinds: Sequence[SqlType]) -> list[Any]:
        values = [
            None if value is None else kind.read(value) for value, kind in zip(call, kinds, strict=True)
        ]
        for name, value in zip(self.args, values, strict=True):
            # Refused here, or the host would refuse the whole batch for it.
            if name in self.context and len(context_text(value)) > MAX_CONTEXT_CHARS:
                raise ValueError(MALFORMED)
        return values

    def _invoke(
        self, request: RemoteRequest, number: int, rows: Sequence[Row], replies: list[Any], invoker: Invoker
    ) -> Counter[str]:
        columns = dict(zip(self.args, zip(*(values for _, values in rows), strict=True), strict=True))
        batch = invoker.invoke_batch(
            str(self.function),
            context={name: [context_text(value) for value in columns[name]] for name in self.context},
            # How a request was cut belongs to it: another release of this code may cut it otherwise.
            idempotency_key=idempotency_key(
                "bigquery", request.caller, request.request_id, str(self.function), f"{number} of {_CUT}"
            ),
            **{name: list(column) for name, column in columns.items() if name not in self.context},
        )
        answered = Column.spread(len(rows), range(len(rows)), batch.values, batch.errors)
        for (index, _), value in zip(rows, answered.values, strict=True):
            replies[index] = None if value is None else self._reply(value)
        return Counter(answered.errors.values())

    def _reply(self, value: Any) -> Any:
        try:
            return self.returns.write(value)
        except ValueError:
            raise ConfigurationError(
                f"the function's output is not of the declared SQL type {self.returns.name}",
                hint="make `returns` agree with the function's output class",
            ) from None


def signature_of(handler: Callable[..., Any]) -> tuple[dict[str, Any], Any]:
    """Arguments and result of a function that is declared by its annotations; it has no body.

    Raises:
        ConfigurationError: An annotation is missing, or there is a body, which would never run.
    """
    import dis  # noqa: PLC0415 (`inspect` has loaded it)

    if not inspect.isfunction(handler):
        raise ConfigurationError(
            "a remote function is declared by a function", hint="def f(x: Sealed) -> bool: ..."
        )
    parameters = inspect.signature(handler).parameters.values()
    if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
        raise ConfigurationError("an argument of a remote function is plain, without a default")
    if {instruction.opname for instruction in dis.get_instructions(handler)} - _EMPTY:
        raise ConfigurationError(
            f"the body of {handler.__name__} would never run",
            hint="write ... as its body; what it does is done by the confidential function",
        )
    try:
        hints = get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"an annotation names {error.name!r}, which is not defined") from None
    missing = [p.name for p in parameters if p.name not in hints] + ["return"] * ("return" not in hints)
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} of {handler.__name__} has no annotation")
    return {p.name: hints[p.name] for p in parameters}, hints["return"]


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    chars = 0
    for row in rows:
        size = sum(len(value) for value in row[1] if isinstance(value, str))
        if batch and (len(batch) == BATCH_ROWS or chars + size > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(row)
        chars += size
    if batch:
        yield batch
