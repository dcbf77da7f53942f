from __future__ import annotations

import pytest

from support import require


@pytest.fixture(params=["", "1"])
def outcome(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    monkeypatch.setenv("CLOISTER_REQUIRE_ALL", request.param)
    return pytest.fail.Exception if request.param else pytest.skip.Exception


def test_a_missing_program_skips_or_fails_where_everything_is_required(outcome: type[BaseException]) -> None:
    with pytest.raises(outcome, match="no-such-program is missing: apt install it"):
        require.binary("no-such-program", install="apt install it")


def test_a_missing_module_skips_or_fails(outcome: type[BaseException]) -> None:
    with pytest.raises(outcome, match="no_such_module is missing: pip install no_such_module"):
        require.module("no_such_module")


def test_a_missing_python_skips_or_fails(outcome: type[BaseException]) -> None:
    with pytest.raises(outcome, match=r"Python 2\.0 is missing"):
        require.python("2.0")


def test_an_old_node_skips_or_fails(outcome: type[BaseException]) -> None:
    require.node(1)
    with pytest.raises(outcome, match=r"Node\.js 999 is missing"):
        require.node(999)


def test_what_is_there_is_returned() -> None:
    assert require.binary("sh").name == "sh"
    require.module("json")
