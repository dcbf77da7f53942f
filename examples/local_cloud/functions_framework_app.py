"""A Cloud Run function on this machine: the real functions-framework under its own server.

with FunctionsFrameworkApp("ssn_breached", source=Path("main.py")) as app:
    requests.post(app.url, json={"calls": [["..."]]})
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from local_cloud.process import Process, clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FunctionsFrameworkApp"]


class FunctionsFrameworkApp:
    """One function in a process of its own.

    Args:
        target: The function's name in the source.
        source: The Python file; its folder is the working directory.
        environment: The function's environment variables.
        python: The interpreter; it must have `functions-framework`.
    """

    def __init__(
        self,
        target: str,
        *,
        source: Path,
        environment: Mapping[str, str] | None = None,
        python: Path = Path(sys.executable),
    ) -> None:
        script = "from functions_framework._cli import _cli; _cli()"
        options = ["--target", target, "--source", source.name, "--host", "127.0.0.1", "--port", "0"]
        self._process = Process(
            [python, "-c", script, *options],
            directory=source.parent,
            environment=clean_environment(
                {
                    "K_SERVICE": target,
                    "K_REVISION": f"{target}-00001",
                    "GUNICORN_LOG_LEVEL": "info",  # the line with the port is of this level
                    **(environment or {}),
                }
            ),
        )
        try:
            self.url = self._process.wait_for_output(r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
            self.pid = int(self._process.wait_for_output(r"Booting worker with pid: (\d+)")[1])
        except RuntimeError:
            self._process.stop()
            raise

    @property
    def logs(self) -> str:
        """Everything the function and its server have written."""
        return self._process.output

    def close(self) -> None:
        """Stop the process."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
