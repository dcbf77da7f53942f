"""From BigQuery's SQL to DuckDB's, with remote functions taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlglot
from sqlglot import exp

from local_cloud.bigquery.errors import ApiError, not_supported
from local_cloud.bigquery.remote import RemoteFunction

__all__ = ["is_remote_function", "parse", "path_of", "remote_function", "to_duckdb"]

# The name of the DuckDB function for (dataset, routine, whether rows may be batched), if there is one.
FindFunction = Callable[[str, str, bool], str | None]

# Where BigQuery evaluates only what a branch needs, it sends one call per request.
SHORT_CIRCUITS = (exp.Case, exp.If, exp.Coalesce, exp.When)


def parse(text: str) -> list[exp.Expression]:
    """Parse the statements of a query.

    Raises:
        ApiError: The text is no BigQuery SQL.
    """
    try:
        statements = sqlglot.parse(text, read="bigquery")
    except sqlglot.errors.SqlglotError as error:
        raise ApiError(400, "invalidQuery", f"Syntax error: {error}") from None
    found = [statement for statement in statements if isinstance(statement, exp.Expression)]
    if not found:
        raise ApiError(400, "invalidQuery", "the query holds no statement")
    return found


def is_remote_function(tree: exp.Expression) -> bool:
    """Whether the statement is `CREATE FUNCTION ... REMOTE WITH CONNECTION ...`."""
    return isinstance(tree, exp.Create) and tree.find(exp.RemoteWithConnectionModelProperty) is not None


def remote_function(tree: exp.Expression) -> RemoteFunction:
    """Read the declaration of a remote function.

    Raises:
        ApiError: A clause is missing or an option is unknown.
    """
    declared = tree.this
    dataset, name = path_of(declared.this)
    returns, connection, options = "", "", dict[str, Any]()
    for item in tree.args["properties"].expressions:
        if isinstance(item, exp.ReturnsProperty):
            returns = item.this.sql("bigquery")
        elif isinstance(item, exp.RemoteWithConnectionModelProperty):
            connection = ".".join(part.name for part in item.this.parts)
        elif isinstance(item, exp.Property):
            options[item.name] = item.args["value"]
    if unknown := options.keys() - {"endpoint", "max_batching_rows", "user_defined_context"}:
        raise not_supported(f"the option {min(unknown)}")
    if not returns or "endpoint" not in options:
        raise ApiError(400, "invalidQuery", "a remote function needs RETURNS and the option endpoint")
    context = options.get("user_defined_context")
    return RemoteFunction.from_rest(
        {
            "routineReference": {"datasetId": dataset, "routineId": name},
            "arguments": [
                {"name": argument.name, "dataType": _data_type(argument.kind)}
                for argument in declared.expressions
            ],
            "returnType": {"typeKind": returns},
            "remoteFunctionOptions": {
                "endpoint": options["endpoint"].name,
                "connection": connection,
                "maxBatchingRows": options["max_batching_rows"].name if "max_batching_rows" in options else 0,
                "userDefinedContext": {
                    pair.expressions[0].name: pair.expressions[1].name for pair in context.expressions
                }
                if context
                else {},
            },
        }
    )


def path_of(node: exp.Table) -> tuple[str, str]:
    """The dataset and name of a table or routine; the project is dropped.

    Raises:
        ApiError: There is no dataset.
    """
    path = [word for part in node.parts for word in part.name.split(".")]
    if len(path) < 2:  # noqa: PLR2004 - dataset and name
        raise ApiError(400, "invalidQuery", f'"{".".join(path)}" must be qualified with a dataset')
    return path[-2], path[-1]


def to_duckdb(
    tree: exp.Expression, *, find_function: FindFunction, session_user: str, default_dataset: str | None
) -> str:
    """Translate one statement."""
    common = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}

    def rewrite(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
            node.set("catalog", None)
            if default_dataset and not node.db and node.name.lower() not in common:
                node.set("db", exp.to_identifier(default_dataset, quoted=True))
        elif isinstance(node, exp.SessionUser):
            return exp.Literal.string(session_user)
        elif isinstance(node, exp.DataType) and node.is_type("decimal") and not node.expressions:
            return exp.DataType.build("DECIMAL(38, 9)", dialect="duckdb")
        else:
            replaced = _rewrite_call(node, find_function)
            if replaced is not node:  # what stands in place of a node is not walked into
                arguments = [argument.transform(rewrite) for argument in replaced.expressions]
                replaced.set("expressions", arguments)
            return replaced
        return node

    return tree.transform(rewrite).sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.IGNORE)


def _rewrite_call(node: exp.Expression, find_function: FindFunction) -> exp.Expression:
    call = node.expression if isinstance(node, exp.Dot) else node
    if not isinstance(call, exp.Anonymous):
        return node
    qualifiers = [part.name for part in node.this.find_all(exp.Identifier)] if call is not node else []
    path = [word for part in [*qualifiers, call.name] for word in part.split(".")]
    if len(path) < 2:  # noqa: PLR2004 - dataset and name
        return node
    batched = node.find_ancestor(*SHORT_CIRCUITS) is None
    name = find_function(path[-2], path[-1], batched)
    return exp.Anonymous(this=name, expressions=call.expressions) if name else node


def _data_type(kind: exp.Expression) -> dict[str, Any]:
    text = kind.sql("bigquery")
    if text.startswith("ARRAY<"):
        return {"typeKind": "ARRAY", "arrayElementType": {"typeKind": text[6:-1]}}
    return {"typeKind": text.split("<")[0]}
