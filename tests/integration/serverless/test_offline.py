"""A service under serverless-offline: the function runs with the settings that the plugin gives it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from local_cloud.process import Process
from support import require
from support.serverless import Service

APP = """
import json, os

def ask(event, context):
    settings = {name: value for name, value in os.environ.items() if name.startswith("CLOISTER_")}
    return {"statusCode": 200, "body": json.dumps(settings)}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["osls4", "serverless3"])
def test_a_function_runs_offline_with_its_settings(framework, tmp_path):
    script = require.framework(framework)
    service = Service(tmp_path, script)
    (tmp_path / "app.py").write_text(APP)
    http, internal = free_port(), free_port()
    service.write(
        plugins=["serverless-offline"],
        functions={
            "ask": {
                "handler": "app.ask",
                "events": [{"httpApi": "GET /ask"}],
                "cloister": {"invoke": ["salary-band@prod"]},
            }
        },
    )
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }
    command = [script, "offline", "start", "--httpPort", str(http), "--lambdaPort", str(internal)]
    with Process(command, environment=environment, directory=tmp_path) as process:
        answer = None
        deadline = time.monotonic() + 120
        while answer is None and process.is_running and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/ask", timeout=60) as response:
                    answer = json.load(response)
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        assert answer is not None, process.output
    assert answer["CLOISTER_URL"] == "https://cloister.example.com"
    assert answer["CLOISTER_POLICY"] == "policy.toml"
