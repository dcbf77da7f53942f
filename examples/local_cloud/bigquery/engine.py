"""The warehouse: datasets, tables and queries in DuckDB, remote functions as its scalar functions."""

from __future__ import annotations

import inspect
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType
from sqlglot import exp

from local_cloud.bigquery import sql
from local_cloud.bigquery.errors import ApiError, not_found, not_supported
from local_cloud.bigquery.types import STANDARD_NAMES, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from local_cloud.bigquery.remote import RemoteCaller, RemoteFunction

__all__ = ["Engine", "Result"]

Columns = list[tuple[str, Any]]  # name and DuckDB type

DML = (exp.Insert, exp.Update, exp.Delete, exp.Merge)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a statement gave."""

    statement_type: str
    schema: tuple[Field, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    affected_rows: int | None = None


class Engine:
    """One project's data; statements run one at a time.

    DuckDB hands a remote function at most 2,048 rows at once, so no batch is larger.
    """

    def __init__(self, caller: RemoteCaller) -> None:
        self._caller = caller
        self._lock = threading.RLock()
        self._db = duckdb.connect()
        self._db.execute("SET TimeZone = 'UTC'; SET threads = 1")
        self._functions: dict[tuple[str, str], tuple[RemoteFunction, str]] = {}
        self._job_id = ""
        self._remote_error: ApiError | None = None

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._db.close()

    # Queries

    def query(
        self,
        text: str,
        *,
        job_id: str,
        parameters: Iterable[Mapping[str, Any]] = (),
        default_dataset: str | None = None,
    ) -> Result:
        """Run one statement or several; the result is the last one's.

        Raises:
            ApiError: A statement is wrong or a remote function failed.
        """
        values = [(item.get("name"), _parameter(item)) for item in parameters]
        with self._lock:
            self._job_id = job_id
            results = [self._run(tree, values, default_dataset) for tree in sql.parse(text)]
        return results[-1]

    def _run(
        self, tree: exp.Expression, values: Sequence[tuple[str | None, Any]], default_dataset: str | None
    ) -> Result:
        if sql.is_remote_function(tree):
            function = sql.remote_function(tree)
            if not (tree.args.get("exists") and (function.dataset, function.name) in self._functions):
                self.put_function(function, replace=bool(tree.args.get("replace")))
            return Result(statement_type="CREATE_FUNCTION")
        if isinstance(tree, exp.Drop) and tree.kind == "FUNCTION":
            self.drop_function(*sql.path_of(tree.args["tables"][0]), missing_ok=bool(tree.args.get("exists")))
            return Result(statement_type="DROP_FUNCTION")
        text = sql.to_duckdb(
            tree,
            find_function=self._find_function,
            session_user=self._caller.session_user,
            default_dataset=default_dataset,
        )
        named = {str(item.this.name) for item in tree.find_all(exp.Parameter)}
        bound = (
            {name: value for name, value in values if name in named}
            if named
            else [value for name, value in values if not name]
        )
        columns, rows = self._execute(text, bound)
        if isinstance(tree, DML):
            return Result(statement_type=tree.key.upper(), affected_rows=rows[0][0])
        if isinstance(tree, exp.Query):
            schema = tuple(Field.from_duckdb(name, type_) for name, type_ in columns)
            return Result(statement_type="SELECT", schema=schema, rows=rows)
        kind = str(tree.args.get("kind") or "").upper()
        suffix = "_AS_SELECT" if kind == "TABLE" and tree.args.get("expression") else ""
        return Result(statement_type=f"{tree.key.upper()}_{kind}{suffix}".rstrip("_"))

    def _execute(self, text: str, values: Any = None) -> tuple[Columns, list[tuple[Any, ...]]]:
        self._remote_error = None
        try:
            done = self._db.execute(text, values)
            return [(column[0], column[1]) for column in done.description or ()], done.fetchall()
        except duckdb.Error as error:
            raise self._explain(error) from None

    def _explain(self, error: duckdb.Error) -> ApiError:
        return self._remote_error or _translated(error)

    # Remote functions

    def put_function(self, function: RemoteFunction, *, replace: bool) -> None:
        """Create a remote function, or replace it."""
        with self._lock:
            self._require_dataset(function.dataset)
            key = (function.dataset, function.name)
            if key in self._functions and not replace:
                raise ApiError(409, "duplicate", f"Already Exists: Routine {'.'.join(key)}")
            name = f"remote_{uuid.uuid4().hex}"
            for batched in (True, False):
                self._db.create_function(
                    _variant(name, batched=batched),
                    self._evaluator(function, batched=batched),
                    [argument.duckdb for argument in function.arguments],
                    function.returns.duckdb,
                    type=PythonUDFType.ARROW,
                    null_handling=FunctionNullHandling.SPECIAL,
                    side_effects=True,
                )
            if key in self._functions:
                self.drop_function(*key)
            self._functions[key] = (function, name)

    def function(self, dataset: str, name: str) -> RemoteFunction:
        """Look up a remote function."""
        if (dataset, name) not in self._functions:
            raise not_found(f"Routine {dataset}.{name}")
        return self._functions[dataset, name][0]

    def functions(self, dataset: str) -> list[RemoteFunction]:
        """The remote functions of a dataset."""
        return [function for function, _ in self._functions.values() if function.dataset == dataset]

    def drop_function(self, dataset: str, name: str, *, missing_ok: bool = False) -> None:
        """Remove a remote function."""
        with self._lock:
            if (dataset, name) not in self._functions:
                if missing_ok:
                    return
                raise not_found(f"Routine {dataset}.{name}")
            _, internal = self._functions.pop((dataset, name))
            for batched in (True, False):
                self._db.remove_function(_variant(internal, batched=batched))

    def _find_function(self, dataset: str, name: str, batched: bool) -> str | None:  # noqa: FBT001 - a port
        found = self._functions.get((dataset, name))
        return _variant(found[1], batched=batched) if found else None

    def _evaluator(self, function: RemoteFunction, *, batched: bool) -> Callable[..., pa.Array]:
        def evaluate(*columns: pa.ChunkedArray) -> pa.Array:
            rows = list(zip(*(column.to_pylist() for column in columns), strict=True))
            try:
                values = self._caller.call(function, rows, job_id=self._job_id, batched=batched)
            except ApiError as error:
                self._remote_error = error
                raise
            return pa.array(values, function.returns.arrow)

        # DuckDB counts the parameters of the Python function.
        evaluate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(f"argument_{index}", inspect.Parameter.POSITIONAL_ONLY)
                for index in range(len(function.arguments))
            ]
        )
        return evaluate

    # Datasets and tables

    def datasets(self) -> list[str]:
        """The names of all datasets."""
        with self._lock:
            _, found = self._execute(
                "SELECT schema_name FROM information_schema.schemata WHERE catalog_name = 'memory' AND"
                " schema_name NOT IN ('main', 'information_schema', 'pg_catalog') ORDER BY 1"
            )
            return [row[0] for row in found]

    def create_dataset(self, dataset: str) -> None:
        """Create an empty dataset."""
        with self._lock:
            if dataset in self.datasets():
                raise ApiError(409, "duplicate", f"Already Exists: Dataset {dataset}")
            self._execute(f"CREATE SCHEMA {_quoted(dataset)}")

    def drop_dataset(self, dataset: str, *, contents: bool) -> None:
        """Remove a dataset, with its contents if asked to."""
        with self._lock:
            self._require_dataset(dataset)
            if not contents and (self.tables(dataset) or self.functions(dataset)):
                raise ApiError(400, "resourceInUse", f"Dataset {dataset} is still in use")
            for function in self.functions(dataset):
                self.drop_function(dataset, function.name)
            self._execute(f"DROP SCHEMA {_quoted(dataset)} CASCADE")

    def tables(self, dataset: str) -> list[str]:
        """The names of a dataset's tables and views."""
        with self._lock:
            self._require_dataset(dataset)
            _, found = self._execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = ? ORDER BY 1",
                [dataset],
            )
            return [row[0] for row in found]

    def create_table(self, dataset: str, table: str, schema: Sequence[Field]) -> None:
        """Create an empty table."""
        with self._lock:
            if table in self.tables(dataset):
                raise ApiError(409, "duplicate", f"Already Exists: Table {dataset}.{table}")
            columns = ", ".join(
                f"{_quoted(field.name)} {field.duckdb}{' NOT NULL' if field.required else ''}"
                for field in schema
            )
            self._execute(f"CREATE TABLE {_quoted(dataset, table)} ({columns})")

    def schema(self, dataset: str, table: str) -> tuple[Field, ...]:
        """The columns of a table."""
        with self._lock:
            if table not in self.tables(dataset):
                raise not_found(f"Table {dataset}.{table}")
            _, found = self._execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = ? AND table_name = ? AND is_nullable = 'NO'",
                [dataset, table],
            )
            required = {row[0] for row in found}
            columns, _ = self._execute(f"SELECT * FROM {_quoted(dataset, table)} LIMIT 0")
            return tuple(Field.from_duckdb(name, type_, required=name in required) for name, type_ in columns)

    def read_table(self, dataset: str, table: str) -> Result:
        """All rows of a table."""
        with self._lock:
            schema = self.schema(dataset, table)
            _, rows = self._execute(f"SELECT * FROM {_quoted(dataset, table)}")
            return Result(statement_type="SELECT", schema=schema, rows=rows)

    def append(self, dataset: str, table: str, rows: pa.Table, *, truncate: bool = False) -> None:
        """Add rows to a table, in place of those it has if asked to."""
        with self._lock:
            self._db.register("incoming", rows)
            try:
                if truncate:
                    self._execute(f"DELETE FROM {_quoted(dataset, table)}")
                self._execute(f"INSERT INTO {_quoted(dataset, table)} BY NAME SELECT * FROM incoming")
            finally:
                self._db.unregister("incoming")

    def drop_table(self, dataset: str, table: str) -> None:
        """Remove a table."""
        with self._lock:
            self.schema(dataset, table)
            self._execute(f"DROP TABLE {_quoted(dataset, table)}")

    def _require_dataset(self, dataset: str) -> None:
        if dataset not in self.datasets():
            raise not_found(f"Dataset {dataset}")


def _variant(name: str, *, batched: bool) -> str:
    return name if batched else f"{name}_single"


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _translated(error: duckdb.Error) -> ApiError:
    message = str(error)
    if isinstance(error, duckdb.CatalogException):
        if "already exists" in message:
            return ApiError(409, "duplicate", f"Already Exists: {message}")
        if "does not exist" in message:
            return ApiError(404, "notFound", f"Not found: {message}")
    return ApiError(400, "invalidQuery", message)


def _parameter(resource: Mapping[str, Any]) -> Any:
    kind = resource["parameterType"]["type"]
    value = resource.get("parameterValue", {})
    if kind == "ARRAY":
        kind = resource["parameterType"]["arrayType"]["type"]
        content: Any = [item.get("value") for item in value.get("arrayValues", ())]
        repeated = True
    else:
        content, repeated = value.get("value"), False
    if kind == "STRUCT":
        raise not_supported("parameters of type STRUCT")
    name = resource.get("name") or "a parameter"
    return Field(name=name, kind=STANDARD_NAMES.get(kind, kind), repeated=repeated).decode(content)
