"""`cloister gcp ddl`: the SQL of a declaration, and everything that has to be done before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = """
from cloister_gcp import Sealed, remote_function, remote_functions

@remote_function("breached@prod", context=["member_id"])
def breached(ssn: Sealed, member_id: int) -> bool: ...

masked = remote_function("masked@prod", args={"ssn": Sealed}, returns=str)
serve = remote_functions(breached, masked)
"""
NAMES = ["--function", "clinic.f", "--connection", "acme-prod.us.link"]
ENDPOINT = ["--endpoint", "https://f.example"]
# Records how it was called and answers as the real one does.
FAKE = """#!{python}
import json, os, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
entry = {{"words": words, "input": "" if "query" not in words else sys.stdin.read()}}
with open({log!r}, "a") as log:
    log.write(json.dumps(entry) + "\\n")
if "--format=value(status.url)" in words:
    print("https://breached-abc.a.run.app")
elif "--format=value(uniqueId)" in words:
    print("110169484474386276334")
elif words[:2] == ["bq", "show"]:
    print(json.dumps({{"cloudResource": {{"serviceAccountId": "bqcx-1@gcp-sa.iam.gserviceaccount.com"}}}}))
"""


def command(folder: Path, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from cloister._cli import main; main()", "gcp", "ddl", target]
    return subprocess.run(
        [*program, *options],
        cwd=folder,
        env={**os.environ, "CLOISTER_URL": "https://cloister.acme.example", "CLOISTER_TENANT": "acme"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


def sql_of(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if not line.startswith("--"))


def test_the_sql_stands_below_the_commands_that_come_before_it(folder):
    done = command(folder, "main:breached", *NAMES, *ENDPOINT)
    assert done.returncode == 0, done.stderr
    assert sql_of(done.stdout) == (
        "CREATE OR REPLACE FUNCTION `clinic.f`(ssn STRING, member_id INT64) RETURNS BOOL\n"
        "REMOTE WITH CONNECTION `acme-prod.us.link`\n"
        "OPTIONS (\n"
        "  endpoint = 'https://f.example',\n"
        "  max_batching_rows = 10000,\n"
        "  user_defined_context = [('function', 'breached')]\n"
        ");"
    )
    comments = "\n".join(line for line in done.stdout.splitlines() if line.startswith("--"))
    for words in ("gcloud run deploy", "bq mk --connection", "roles/run.invoker", "cloister principal bind"):
        assert words in comments


def test_an_endpoint_of_several_functions_gives_the_sql_of_each(folder):
    done = command(folder, "main:serve", "--function", "clinic", "--connection", "us.link", *ENDPOINT)
    assert done.returncode == 0, done.stderr
    sql = sql_of(done.stdout)
    assert sql.count("CREATE OR REPLACE FUNCTION") == 2
    assert "`clinic.breached`" in sql
    assert "`clinic.masked`" in sql
    assert "[('function', 'masked')]" in sql
    assert "--function=serve" in done.stdout


def test_the_script_runs_and_ends_in_the_sql_function(folder):
    """By a shell, with programs in place of gcloud and bq that only write down how they are called."""
    programs = folder / "bin"
    programs.mkdir()
    log = folder / "log"
    for name in ("gcloud", "bq", "cloister"):
        (programs / name).write_text(FAKE.format(python=sys.executable, log=str(log)))
        (programs / name).chmod(0o755)
    real = f'exec "{sys.executable}" -c "from cloister._cli import main; main()" "$@"'
    fake = programs / "fake"
    (programs / "cloister").rename(fake)
    (programs / "cloister").write_text(f'#!/bin/sh\n[ "$1" = gcp ] || exec "{fake}" "$@"\n{real}\n')
    (programs / "cloister").chmod(0o755)
    script = command(folder, "main:breached", *NAMES, "--service", "ssn-endpoint", "--shell")
    assert script.returncode == 0, script.stderr
    done = subprocess.run(
        ["bash"],
        input=script.stdout,
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    said = [call["words"] for call in calls]
    account = "ssn-endpoint@acme-prod.iam.gserviceaccount.com"
    deploy = next(words for words in said if words[:3] == ["gcloud", "run", "deploy"])
    assert "--no-allow-unauthenticated" in deploy
    assert f"--service-account={account}" in deploy
    assert "--region=us-central1" in deploy
    assert (
        "--set-env-vars=CLOISTER_URL=https://cloister.acme.example,CLOISTER_TENANT=acme,"
        "CLOISTER_POLICY=policy.toml,CLOISTER_IDENTITY=gcp" in deploy
    )
    allow = next(words for words in said if "add-iam-policy-binding" in words)
    assert "--member=serviceAccount:bqcx-1@gcp-sa.iam.gserviceaccount.com" in allow
    assert "--role=roles/run.invoker" in allow
    bind = next(words for words in said if words[1:3] == ["principal", "bind"])
    assert {"sub=110169484474386276334", f"email={account}"} <= set(bind)
    assert ["fake", "grant", "add", "ssn-endpoint", "invoke", "function/breached"] in said
    assert said[-1] == ["bq", "query", "--nouse_legacy_sql"]
    assert "endpoint = 'https://breached-abc.a.run.app'" in calls[-1]["input"]


@pytest.mark.parametrize("target", ["main:g", "absent:f", "main", "", ":", "main:__name__"])
def test_the_command_says_what_to_name(folder, target):
    done = command(folder, target, *NAMES, *ENDPOINT)
    assert done.returncode == 1
    assert "main:NAME" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--service", "x; rm -rf /"],
        ["--service", "short"],
        ["--region", "$(id)"],
        ["--connection", "us.$(id)"],
    ],
    ids=repr,
)
def test_no_name_says_more_to_a_shell(folder, options):
    done = command(folder, "main:breached", *NAMES, *ENDPOINT, *options, "--shell")
    assert done.returncode == 1
    assert "$(id)" not in done.stdout


def test_without_an_endpoint_there_is_no_sql_that_could_be_run(folder):
    done = command(folder, "main:breached", *NAMES)
    assert done.returncode == 1
    assert "https URL" in done.stderr
    assert "CREATE" not in done.stdout
