"""The page on Google Cloud as written, on functions-framework, the real BigQuery client and a host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from local_cloud.bigquery import LocalBigQuery
from local_cloud.functions_framework_app import FunctionsFrameworkApp
from local_cloud.google_identity import GoogleIdentity

PAGE = (Path(__file__).parents[2] / "docs" / "gcp.md").read_text()
REMOTE, FUNCTION = (
    PAGE.split(f"## Quick start: {name}")[1].split("\n## ")[0] for name in ("a Big", "a Cloud")
)
FILE = re.compile(r"`([\w/]+\.py)`.*:\n\n```python\n((?:.|\n)*?)```")
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SETTINGS = re.compile(r"```ini\n(.*?)```", re.DOTALL)

# Google's `bq` comes with its SDK alone. This one does what the page asks of it, by the real client.
BQ = """#!{python}
import csv, sys
from google.cloud import bigquery

command, *words = sys.argv[1:]
plain = [word for word in words if not word.startswith("--")]
with bigquery.Client() as client:
    if command == "mk":
        client.create_dataset(plain[0])
    else:
        found = client.query_and_wait(plain[0] if plain else sys.stdin.read())
        if "--format=csv" in words:
            out = csv.writer(sys.stdout, lineterminator="\\n")
            out.writerow([field.name for field in found.schema])
            for row in found:
                out.writerow([str(v).lower() if isinstance(v, bool) else v for v in row.values()])
"""


class World:
    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = environment

    def run(self, commands, **more):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self, part, expected):
        files = dict(FILE.findall(part))
        assert set(files) == expected
        for name, text in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)

    def serve(self, target, source):
        settings = dict(line.split("=", 1) for line in SETTINGS.search(REMOTE)[1].split())
        return FunctionsFrameworkApp(target, source=self.folder / source, environment=settings)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The quick starts' folder, with a warehouse and a host that runs until the end."""
    folder = tmp_path_factory.mktemp("quick")
    programs = folder / "bin"
    programs.mkdir()
    (programs / "bq").write_text(BQ.format(python=sys.executable))
    (programs / "bq").chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    with GoogleIdentity() as google, LocalBigQuery() as warehouse:
        environment = {
            "PATH": path,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "BIGQUERY_EMULATOR_HOST": warehouse.url,
            "GOOGLE_CLOUD_PROJECT": "local-project",
            "GOOGLE_APPLICATION_CREDENTIALS": str(google.key_file(folder / "account.json")),
        }
        world = World(folder, environment)
        world.files(REMOTE, {"listed/listed.py", "main.py", "load.py"})
        world.files(FUNCTION, {"overdrawn/overdrawn.py", "app.py"})
        start, deploy, _ = SHELL.findall(REMOTE)
        try:
            world.run(start)
            world.run(deploy)
            yield world
        finally:
            world.run("cloister host stop")


def test_the_quick_start_of_bigquery_ends_in_its_result(world):
    *_, query = SHELL.findall(REMOTE)
    with world.serve("ssn_listed", "main.py") as endpoint:
        found = world.run(query, ENDPOINT=endpoint.url)
        assert found == re.search(r"```csv\n(.*?)```", REMOTE, re.DOTALL)[1]
        copied = "SELECT clinic.ssn_listed(ssn, 2) FROM clinic.members WHERE member_id = 1"
        assert world.run(f"bq query --nouse_legacy_sql --format=csv '{copied}'").splitlines()[1:] == ['""']
        assert "078" not in endpoint.logs
    stored = world.run("bq query --nouse_legacy_sql --format=csv 'SELECT * FROM clinic.members'")
    assert "078-05-1120" not in stored
    assert "eyJ" in stored


def test_the_quick_start_of_cloud_run_ends_in_its_result(world):
    for commands in SHELL.findall(FUNCTION):
        world.run(commands)
    sealed = (world.folder / "history.jwe").read_text().strip()
    with world.serve("handler", "app.py") as app:
        answer = requests.post(app.url, json={"customer": "17", "history": sealed}, timeout=60)
        other = requests.post(app.url, json={"customer": "18", "history": sealed}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["value"] is True
    assert set(answer.json()) == {"value", "receipt"}
    assert other.status_code == 500
    assert "-95" not in app.logs + other.text


def test_what_was_loaded_is_read_back_by_who_may_unwrap(world):
    """The piece on reading back, after the quick start has loaded the table."""
    piece = re.search(r"\*\*Reading back.\*\*.*?```python\n(.*?)```", PAGE, re.DOTALL)[1]
    program = (
        "from google.cloud import bigquery\nfrom cloister import Client\n"
        f"client, warehouse = Client.from_env(), bigquery.Client()\n{piece}\nprint(sorted(numbers))"
    )
    (world.folder / "back.py").write_text(program)
    assert world.run("python back.py") == "['078-05-1120', '123-45-6789']\n"


def test_the_pieces_of_code_on_the_page_can_be_written_so():
    pieces = re.findall(r"```python\n(.*?)```", PAGE.split("## BigQuery")[1], re.DOTALL)
    assert len(pieces) == 2
    for piece in pieces:
        compile(piece, "gcp.md", "exec")
