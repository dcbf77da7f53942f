"""Every command with arguments that mean nothing: an error that says what to do, and never a traceback."""

from __future__ import annotations

import io
import sys

import pytest

from cloister._cli import DefectError, explain, known
from cloister_host.embedded import embedded_host
from support.command_tree import commands, root

LEAVES = {path: command for path, command in commands().items() if not hasattr(command, "list_commands")}
RUNS_LONG = {"function test", "aws layer"}
"""They start pytest and pip."""

SHORT = (
    "audit",
    "delivery",
    "evidence",
    "function",
    "grant",
    "issuer",
    "key",
    "object",
    "policy",
    "principal",
)
"""Groups that the short sibling walks; the slow test walks everything."""

TEXTS = ("", "x" * 5000, "../../etc/passwd", "na\u00efve \U0001f4a5\n", "=", "{", "\udcff", "-")
NUMBERS = ("0", "1", "10" * 15)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant()
        yield tenant.environment("admin")
        tenant.admin.close()


@pytest.fixture
def type_(settings, tmp_path, monkeypatch):
    """Type a command into this process; gives its exit code and what it says as an error."""
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "folder").mkdir()

    def type_(arguments, stdin=b"\xff\xfe junk \x00\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        failure = None
        try:
            root().main(list(arguments), prog_name="cloister", standalone_mode=True)
        except SystemExit as end:
            return end.code or 0, ""
        except Exception as error:  # noqa: BLE001 (as the command line itself does)
            failure = known(error)
        if failure is None:
            return 0, ""
        assert not isinstance(failure, DefectError), (arguments, failure)
        assert failure.args[0], arguments
        return 1, explain(failure)

    return type_


def junk(command, number, *, everything):
    """Arguments that fit a command's shape, and nothing else about it."""
    arguments, positional = [], []
    for offset, param in enumerate(command.params):
        names = [name for name in param.opts if name.startswith("--")]
        if not names:
            positional.append(value_for(param, number + offset))
        elif names[0] == "--listen":
            arguments += ["--listen", "nowhere at all"]
        elif names[0] not in {"--help", "--json", "--detach"} and (everything or param.required):
            arguments += names[:1] if param.is_flag else [names[0], value_for(param, number + offset)]
    return [*arguments, "--", *positional]


def value_for(param, number):
    kind = repr(getattr(param, "type_descriptor", None) or getattr(param, "type", "")).lower()
    if "path" in kind:
        return ("missing/file", "folder", "binary", "folder/new")[number % 4]
    if "'int'" in kind or "'float'" in kind:
        return NUMBERS[number % len(NUMBERS)]
    return TEXTS[number % len(TEXTS)]


@pytest.mark.parametrize("path", sorted(p for p in LEAVES.keys() - RUNS_LONG if p.split()[0] in SHORT))
def test_a_command_that_is_given_nonsense_says_so(type_, path, capsys):
    code, _ = type_([*path.split(), *junk(LEAVES[path], 0, everything=False)])
    assert "Traceback" not in capsys.readouterr().err
    assert code in {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LEAVES.keys() - RUNS_LONG))
def test_a_command_that_is_given_all_kinds_of_nonsense_says_so(type_, path, capsys):
    for number in range(len(TEXTS)):
        for everything in (False, True):
            code, _ = type_([*path.split(), *junk(LEAVES[path], number, everything=everything)])
            assert code in {0, 1, 2, 3}
    type_([*path.split(), "--no-such-option"])
    type_([*path.split(), *["too", "many"] * 10])
    assert "Traceback" not in capsys.readouterr().err


def test_nonsense_in_the_settings_is_said(type_, tmp_path, monkeypatch):
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe")
    for name, value in (
        ("CLOISTER_URL", "nonsense"),
        ("CLOISTER_POLICY", str(tmp_path / "policy.toml")),
        ("CLOISTER_POLICY", str(tmp_path)),
        ("CLOISTER_API_KEY_FILE", str(tmp_path / "binary")),
        ("CLOISTER_TIMEOUT_SECONDS", "soon"),
        ("CLOISTER_IDENTITY", "nobody"),
        ("CLOISTER_WITNESS", "nonsense"),
        ("CLOISTER_PROFILE", "nobody"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            code, said = type_(["key", "list"])
            assert (code, said.startswith("error [")) == (1, True), name
