"""The keypad's side: seal a PIN, bound to its account, before it enters the cloud.

    python seal.py ACCOUNT              # asks for the PIN; prints the event for the Lambda function

Runs as a principal that may seal under `pins` and nothing else: it cannot open what it sealed.
"""

from __future__ import annotations

import getpass
import json
import sys
import uuid

from cloister import Client

__all__ = ["transfer_event"]


def transfer_event(client: Client, pin: str, *, account: str) -> dict[str, str]:
    """What the Lambda function is invoked with; send the same event again after a failure."""
    sealed = client.seal(pin, key="pins", context={"account": account})
    return {"transfer": str(uuid.uuid4()), "account": account, "pin": str(sealed)}


def main(arguments: list[str]) -> int:
    """Seal one PIN."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    with Client.from_env() as client:
        event = transfer_event(client, getpass.getpass("PIN: "), account=arguments[0])
    print(json.dumps(event))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
