"""The Lambda layer: for the runtime it is meant for, small, the same bytes each time, and it works."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from cloister.errors import ConfigurationError
from cloister.jose import generate_key
from cloister_aws import _cli, layer
from cloister_aws.layer import build_layer
from support import require

MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two layers of one kind, and one for the other architecture."""
    folder = tmp_path_factory.mktemp("layers")
    try:
        return [
            build_layer(folder / f"{name}.zip", python="3.12", architecture=architecture)
            for name, architecture in (("a", "x86_64"), ("b", "x86_64"), ("c", "arm64"))
        ]
    except ConfigurationError as error:
        if "route" not in error.hint:
            raise
        require.missing("a package index", install=error.hint)


def names(one):
    with zipfile.ZipFile(one.path) as archive:
        return archive.namelist()


def test_it_is_small_and_says_what_it_holds(built):
    for one in built:
        assert one.size_bytes == one.path.stat().st_size < MAX_BYTES
        assert one.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest()
        assert {"cloister", "cryptography"} <= one.packages.keys()


def test_the_same_installation_builds_the_same_bytes(built):
    first, second, other = built
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 != other.sha256


def test_machine_code_is_of_the_architecture_that_was_asked_for(built):
    machines = {"x86_64": 0x3E, "arm64": 0xB7}  # e_machine of ELF
    for one in built:
        with zipfile.ZipFile(one.path) as archive:
            libraries = [name for name in archive.namelist() if name.endswith(".so")]
            found = {int.from_bytes(archive.read(name)[18:20], "little") for name in libraries}
        assert len(libraries) >= 2
        assert found == {machines[one.architecture]}


def test_it_holds_neither_host_nor_other_clouds_nor_what_lambda_brings(built):
    roots = {name.split("/")[1] for name in names(built[0])}
    assert {"cloister", "cloister_aws"} <= roots
    assert not roots & {"cloister_host", "cloister_gcp", "cloister_azure", "boto3", "botocore", "pip"}
    assert not any("/_cli/" in name or "/tests/" in name for name in names(built[0]))


def test_entries_are_in_the_folder_that_lambda_puts_on_the_path(built):
    with zipfile.ZipFile(built[0].path) as archive:
        entries = archive.infolist()
    assert all(entry.filename.startswith("python/") for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)


SEALING = """
import json, sys
import cloister, cloister_aws
from cloister.envelope import seal_to
assert cloister.__file__.startswith(sys.argv[1]), cloister.__file__
print(seal_to("x", json.loads(sys.argv[2]), kid="histories.1"))
"""


def test_the_runtime_it_is_for_seals_with_nothing_else_on_its_path(built, tmp_path):
    python = require.python("3.12")
    assert built[0].has_bytecode
    with zipfile.ZipFile(built[0].path) as archive:
        archive.extractall(tmp_path)
    key = generate_key("HPKE-10-KE")
    done = subprocess.run(
        [python, "-S", "-W", "error", "-c", SEALING, tmp_path, json.dumps(key.public().to_jwk())],
        env={"PYTHONPATH": str(tmp_path / "python"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("eyJ")


def test_the_command_line_builds_it_and_says_how_to_publish_it(built, tmp_path, monkeypatch):
    monkeypatch.setattr(_cli, "build_layer", lambda out, **_: replace(built[2], path=out))
    out = tmp_path / "layer.zip"
    options = ["layer", "--python", "3.12", "--architecture", "arm64"]
    done = CliRunner().invoke(_cli.app, [*options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"fileb://{out} --compatible-runtimes python3.12 --compatible-architectures arm64" in done.output
    done = CliRunner().invoke(_cli.app, [*options, "--json"])
    assert json.loads(done.output)["sha256"] == built[2].sha256


@pytest.mark.parametrize(
    ("python", "architecture"),
    [("3.10", "x86_64"), ("2.7", "arm64"), ("3.12; id", "arm64"), ("3.12", "riscv")],
)
def test_what_is_no_runtime_is_refused_before_anything_is_fetched(
    python, architecture, tmp_path, monkeypatch
):
    monkeypatch.setattr(layer, "_download", None)
    with pytest.raises(ConfigurationError, match="runtime"):
        build_layer(tmp_path / "x.zip", python=python, architecture=architecture)


def test_a_runtime_without_wheels_is_told_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigurationError, match="wheel") as refusal:
        build_layer(tmp_path / "x.zip", python="3.11", architecture="x86_64")
    assert "3.12" in refusal.value.hint
    assert not (tmp_path / "x.zip").exists()
