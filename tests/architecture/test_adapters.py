"""No adapter opens: nothing in one even names an operation that gives a plaintext."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ADAPTERS = Path(__file__).parents[2] / "adapters"
OPENING = {
    "open_many",
    "open_column",
    "open_value",
    "detokenize",
    "unwrap",
    "decrypt",
    "decrypt_compact",
    "value.open",
    "key.unwrap",
    "token.detokenize",
}


def names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


@pytest.mark.parametrize("module", sorted(ADAPTERS.glob("cloister_*/**/*.py")), ids=lambda path: path.name)
def test_an_adapter_names_no_operation_that_opens(module):
    assert not names(ast.parse(module.read_text())) & OPENING


def test_the_names_are_found_where_they_are():
    source = "from cloister import x\nx.client.open_many([]); x.call('value.open', {})"
    assert names(ast.parse(source)) >= {"open_many", "value.open"}
