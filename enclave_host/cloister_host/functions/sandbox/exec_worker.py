"""Entry of a worker at the `process` level: harden, then serve.

Arguments: descriptor of the socket, folder of the code, memory in MiB, pid of the host.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from cloister_host.functions.sandbox.harden import die_with, forgo_privileges, limit_resources, mapped_bytes
from cloister_host.functions.sandbox.worker import serve

if __name__ == "__main__":
    descriptor, code, memory_mib, parent = sys.argv[1:]
    die_with(int(parent))
    connection = socket.socket(fileno=int(descriptor))
    forgo_privileges()
    limit_resources(memory_mib=int(memory_mib), mapped=mapped_bytes())
    del sys.argv[1:]
    serve(connection, Path(code))
