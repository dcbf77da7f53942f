"""Operations on DataFrames, lazy as Spark's are: rows are worked on when something asks for them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cloister.columns import Patience
from cloister.errors import ConfigurationError
from cloister.faas import FunctionName
from cloister.mask import View
from cloister.names import check_name
from cloister_spark.batches import ARROW_TYPES, Work
from cloister_spark.connection import Connection
from cloister_spark.progress import Progress
from cloister_spark.rotation import Rotated, Rotation
from cloister_spark.steps import Invoke, Mask, Retokenize, Rewrap, Seal, Show, Step, Tokenize

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Cloister"]

ERROR_SUFFIX: Final = "_error"


class Cloister:
    """A tenant's columns in Spark.

    Each method gives a DataFrame with one column replaced, or made (`into`), and one with error codes
    (`<column>_error`, or as `error` says; `error=None` fails the job where one row fails). Nulls stay null,
    and so does a row that has failed: its first error stays, however many steps follow.

    Args:
        patience: How long executors wait out an outage.
        run: Names the run for idempotency. A DataFrame that Spark computes twice, and a job that is started
            again under the same name within 24 hours, gets the same tokens for the same rows.
        settings: Of `cloister.Client`, such as `url`, `tenant`, `policy`, `identity`, `api_key_file`. Paths
            of credentials are paths on the executors; the policy is read here. What is not given each
            executor takes from its own environment or `cloister.toml`.

    Raises:
        ConfigurationError: A setting is unknown or holds a credential.
    """

    def __init__(self, *, patience: Patience | None = None, run: str | None = None, **settings: Any) -> None:
        self._connection = Connection.of(settings)
        self._patience = patience or Patience()
        self._run = run or secrets.token_urlsafe(16)
        self.progress = Progress()

    def seal(
        self,
        frame: DataFrame,
        column: str,
        *,
        key: str,
        context: Sequence[str] = (),
        into: str | None = None,
        error: str | None = "",
    ) -> DataFrame:
        """Seal a column under a key of the tenant (right `seal`).

        Args:
            frame: The rows.
            column: Of type string, binary, boolean, a number, or an array or map of these.
            key: The key's name.
            context: Columns that each value is bound to; it opens only beside the same ones.
            into: The sealed column, a string; by default it takes the place of the plain one.
            error: The column of error codes; None fails the job instead.
        """
        step = Seal(column=column, key=check_name(key, "key"), context=_names(context))
        return self._map(frame, step, into=into or column, error=error)

    def tokenize(
        self,
        frame: DataFrame,
        column: str,
        *,
        policy: str,
        tweak: str | None = None,
        into: str | None = None,
        error: str | None = "",
    ) -> DataFrame:
        """Replace a column's text by tokens of a policy (right `tokenize`); `tweak` names its column."""
        step = Tokenize(column=column, policy=check_name(policy, "policy"), tweak=tweak)
        return self._map(frame, step, into=into or column, error=error)

    def detokenize(
        self,
        frame: DataFrame,
        column: str,
        *,
        policy: str,
        tweak: str | None = None,
        key_version: int | None = None,
        purpose: str | None = None,
        into: str | None = None,
        error: str | None = "",
    ) -> DataFrame:
        """Show what the executors' principal may see of the values behind tokens.

        The policy's views decide, in the host: with `detokenize-masked` it never is a plain value. Budgets
        hold for a job as for anybody.
        """
        step = Show(
            column=column,
            policy=check_name(policy, "policy"),
            tweak=tweak,
            key_version=key_version,
            purpose=purpose,
        )
        return self._map(frame, step, into=into or column, error=error)

    def retokenize(
        self,
        frame: DataFrame,
        column: str,
        *,
        policy: str,
        to: str | None = None,
        key_version: int | None = None,
        tweak: str | None = None,
        into: str | None = None,
        error: str | None = "",
    ) -> DataFrame:
        """Move tokens from `key_version` to the current one, or to another policy (right `retokenize`)."""
        step = Retokenize(
            column=column,
            policy=check_name(policy, "policy"),
            to=None if to is None else check_name(to, "policy"),
            key_version=key_version,
            tweak=tweak,
        )
        return self._map(frame, step, into=into or column, error=error)

    def rewrap(
        self,
        frame: DataFrame,
        column: str,
        *,
        key: str,
        context: Sequence[str] = (),
        into: str | None = None,
        error: str | None = "",
    ) -> DataFrame:
        """Move sealed values to the key's current version, unseen (right `rewrap`)."""
        step = Rewrap(column=column, key=check_name(key, "key"), context=_names(context))
        return self._map(frame, step, into=into or column, error=error)

    def mask(self, frame: DataFrame, views: Mapping[str, View], *, error: str | None = None) -> DataFrame:
        """Show text columns in views (`cloister.mask`), on the executors and without the host.

        Raises:
            ConfigurationError: A column is not there, or `error` was named for several columns.
        """
        if error is not None and len(views) != 1:
            raise ConfigurationError(
                "an error column belongs to one column", hint="mask the columns one by one"
            )
        for column, view in views.items():
            frame = self._map(frame, Mask(column=column, view=view), into=column, error=error)
        return frame

    def invoke(
        self,
        frame: DataFrame,
        function: str,
        *,
        inputs: Mapping[str, str] | Sequence[str],
        into: str,
        returns: str,
        context: Mapping[str, str] | Sequence[str] = (),
        error: str | None = "",
    ) -> DataFrame:
        """Call a confidential batch function on every row without a null in its inputs.

        Args:
            frame: The rows.
            function: `name@alias`, or `name@<digest>` for one bundle.
            inputs: Column by the function's name for it, or names that both share.
            into: The column of answers.
            returns: Its type: `string` (also for sealed values and tokens), `boolean`, `bigint`, `double`.
            context: Columns that sealed inputs are bound to, as `inputs`.
            error: The column of error codes; None fails the job instead.

        Raises:
            ConfigurationError: A column is not there, or a name cannot be used.
        """
        step = Invoke(
            function=str(FunctionName.parse(function)), inputs=_pairs(inputs), context=_pairs(context)
        )
        if not step.inputs:
            raise ConfigurationError("a function has at least one input")
        return self._map(frame, step, into=into, error=error, returns=returns)

    def rotate(
        self,
        spark: SparkSession,
        source: str,
        target: str,
        steps: Sequence[Rewrap | Retokenize],
        *,
        format: str = "parquet",  # noqa: A002 (Spark's word)
        partition_by: Sequence[str] = (),
        files_per_part: int = 8,
        told: Callable[[int, int], object] | None = None,
    ) -> Rotated:
        """Write a whole table anew with columns moved to current keys. Run it again to go on after a failure.

        A row that cannot be moved keeps its old value, and stands with its error code in `<target>/_failed`.

        Args:
            spark: The session; the job is one of its.
            source: Folder of the table, on any file system of Spark's. It is not changed.
            target: Folder of the new table.
            steps: `Rewrap` and `Retokenize`, one a column.
            format: `parquet` or `orc`.
            partition_by: Columns that the new table is laid out by.
            files_per_part: Files of the source that are worked on between two entries of the journal.
            told: Called with how many parts are done, and how many there are.

        Raises:
            ConfigurationError: There is no such table, or the target was begun for something else.
        """
        rotation = Rotation(
            map=self._map,
            source=source,
            target=target,
            steps=tuple(steps),
            format=format,
            partition_by=tuple(partition_by),
            files_per_part=files_per_part,
            told=told,
        )
        return rotation.run(spark)

    def _map(
        self,
        frame: DataFrame,
        step: Step,
        *,
        into: str,
        error: str | None,
        returns: str = "string",
        run: str = "",
    ) -> DataFrame:
        from pyspark.sql.types import StructType  # noqa: PLC0415 (only where Spark is)

        missing = sorted(set(step.columns) - set(frame.columns))
        if missing:
            raise ConfigurationError(f"there is no column {', '.join(map(repr, missing))}")
        if len(set(frame.columns)) != len(frame.columns):
            raise ConfigurationError("two columns have one name", hint="rename one of them")
        if returns not in ARROW_TYPES:
            raise ConfigurationError(f"`returns` is one of {', '.join(ARROW_TYPES)}")
        types = dict(frame.dtypes)
        chained = error == "" and types.get(f"{into}{ERROR_SUFFIX}") == "string"
        error = f"{into}{ERROR_SUFFIX}" if error == "" else error
        if error is not None and (error == into or (error in types and not chained)):
            raise ConfigurationError(f"the error column {error!r} is there already", hint="name another")
        work = Work(
            step=step,
            into=into,
            type=returns,
            error=error,
            connection=self._connection,
            patience=self._patience,
            run=run or self._run,
            meter=self.progress.meter(_context(frame)),
        )
        # In the order in which `Work` gives the columns: those there are, then what is made.
        made = {into: returns} if error is None else {into: returns, error: "string"}
        fields = {field.name: field for field in frame.schema.fields}
        schema = StructType()
        for name in dict.fromkeys([*fields, *made]):
            schema = schema.add(name, made[name]) if name in made else schema.add(fields[name])

        # A plain function, since Spark asks for one; what it closes over is all that travels.
        def on_executor(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return work(batches)

        return frame.mapInArrow(on_executor, schema)


def _context(frame: DataFrame) -> SparkContext | None:
    """None for Spark Connect, which has no accumulators."""
    return getattr(frame.sparkSession, "_sc", None)


def _names(columns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(columns, str):
        raise ConfigurationError("columns are a list of names")
    return tuple(columns)


def _pairs(columns: Mapping[str, str] | Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The function's name for each column, and the column's."""
    if isinstance(columns, Mapping):
        return tuple(columns.items())
    return tuple((name, name) for name in _names(columns))
