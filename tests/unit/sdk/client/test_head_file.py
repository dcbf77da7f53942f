"""Heads kept in a file: replaced in one step, and never taken for empty when they cannot be read."""

from __future__ import annotations

import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import ConfigurationError
from cloister.head_file import HeadFile
from support.log_double import MemoryLog


def test_a_head_is_found_again_beside_those_of_other_deployments(tmp_path):
    one, other = MemoryLog().head(), MemoryLog().head()
    file = HeadFile(tmp_path / "heads.json")
    assert file.load(one.deployment) is None
    file.save(one)
    file.save(other)
    assert file.load(one.deployment) == one.token
    assert file.load(other.deployment) == other.token
    assert stat.S_IMODE((tmp_path / "heads.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["heads.json"]


@given(st.binary(max_size=100) | st.builds(json.dumps, st.lists(st.text())).map(str.encode))
def test_a_file_that_is_not_ours_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("heads") / "heads.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        HeadFile(path).load("x")


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "heads.json").write_text(json.dumps({"x": "y" * 2**20}))
    with pytest.raises(ConfigurationError):
        HeadFile(tmp_path / "heads.json").load("x")


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be written"):
        HeadFile(tmp_path / "none" / "heads.json").save(MemoryLog().head())
