"""`python -m cloister_host` is `cloister host`."""

from __future__ import annotations

import sys

from cloister._cli import explain
from cloister.errors import CloisterError
from cloister_host._cli import app

if __name__ == "__main__":
    try:
        app(prog_name="cloister host")
    except CloisterError as error:
        sys.exit(explain(error))
