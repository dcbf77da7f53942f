"""The whole workflow on this machine: Lambda's runtime, an enclave host, Azure's runtime, Azurite.

    python run.py

Three parties, three rights: the keypad may seal PINs, the Lambda function may invoke the function, the
function may open PINs, tokenize them and deliver to the card application. None may do what another does.
Then a whole file of sealed PINs moves from one cloud to the other with `cloister transfer`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# These folders hold scripts, not packages; the neighbour `local_cloud` is a package.
sys.path[:0] = [str(HERE / "aws"), str(HERE.parent)]

from seal import transfer_event  # noqa: E402 - found through the line above

from cloister import Client  # noqa: E402 - sorted after the module above
from cloister_host.embedded import EmbeddedHost, Tenant, embedded_host  # noqa: E402 - as above
from local_cloud.azure_functions import AzureFunctions  # noqa: E402 - as above
from local_cloud.azurite import Azurite  # noqa: E402 - as above
from local_cloud.ca import LocalCA  # noqa: E402 - as above
from local_cloud.lambda_runtime import InvocationResult, LambdaRuntime  # noqa: E402 - as above

__all__ = ["PinCloud", "Summary", "pin_cloud", "run"]

ACCOUNT, PIN = "ACC-2201", "4071"
MORE = {"ACC-2202": "1958", "ACC-2203": "8261", "ACC-2204": "0007"}
CONTAINER = "pins"
SHOWN_CHARS = 60
DELIVERY_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What each party saw.

    Attributes:
        pin_seen: How the sealed PIN that the Lambda function handled begins.
        token_seen: The token that came back to the Lambda function.
        stored: What the card application keeps.
        receipt: Id of the receipt that proves which code made the token.
        moved: How many PINs of the file the card application holds now.
        runtime: What the card application ran under.
    """

    function_digest: str
    pin_seen: str
    token_seen: str
    stored: Mapping[str, Any]
    receipt: str
    moved: int
    delivery_id: str
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PinCloud:
    """The workflow, set up: who takes part, and what the clouds hold."""

    tenant: Tenant
    function_digest: str
    keypad: Client = field(repr=False)
    function: LambdaRuntime
    cards: AzureFunctions
    storage: Azurite

    def invoke(self, event: Mapping[str, str]) -> InvocationResult:
        """Invoke the Lambda function."""
        return self.function.invoke(event)

    def transfer(self, source: Path, state: Path, *options: str) -> tuple[list[str], dict[str, str]]:
        """The command that moves a file of transfers, and its environment."""
        command = [sys.executable, "-m", "cloister", "transfer", str(source), "pin-transfer@prod"]
        fields = ["--input", "pin", "--input", "account", "--context", "account", "--id", "transfer"]
        environment = {"PATH": os.environ["PATH"], **self.tenant.environment("pin-migration")}
        return [*command, *fields, "--state", str(state), *options], environment

    def stored(self) -> dict[str, bytes]:
        """The card application's blobs by name, which is the id of their delivery."""
        with self.storage.client() as service:
            container = service.get_container_client(CONTAINER)
            names = [blob.name for blob in container.list_blobs()]
            return {name: container.download_blob(name).readall() for name in names}

    def wait_until_stored(self, delivery_id: str) -> bytes:
        """The card application's blob of one delivery.

        Raises:
            RuntimeError: It did not come in time.
        """
        deadline = time.monotonic() + DELIVERY_SECONDS
        while time.monotonic() < deadline:
            found = self.stored().get(delivery_id)
            if found is not None:
                return found
            time.sleep(0.05)
        raise RuntimeError("the delivery did not reach the card application")


@contextmanager
def pin_cloud(host: EmbeddedHost, ca: LocalCA) -> Iterator[PinCloud]:
    """Set the workflow up: key, token policy, function and principals on the host, an app in each cloud.

    The host must trust `ca` for egress, and may reach private addresses.
    """
    tenant = host.tenant()
    with (
        tenant.admin as admin,
        Azurite() as storage,
        AzureFunctions(
            HERE / "azure",
            ca=ca,
            environment=lambda url: {
                "CARD_STORAGE": storage.connection_string,
                "CLOISTER_TENANT": tenant.name,
                "CLOISTER_POLICY": str(host.policy),
                "CLOISTER_RECEIVER_URL": url,
            },
        ) as cards,
    ):
        with storage.client() as service:
            service.create_container(CONTAINER)
        admin.call("key.create", {"key": "pins", "purpose": "seal"})
        # A PIN has 10,000 values: only a random token that the vault remembers cannot be undone by listing.
        admin.call("policy.create", {"policy": "pins", "plan": "vault", "type": "pin"})
        digest = tenant.deploy(HERE / "function", {"CARD_APP": cards.url})["digest"]
        tenant.principal("pin-lambda", [("invoke", "function/pin-transfer")], kind="faas")
        tenant.principal("pin-migration", [("invoke", "function/pin-transfer")])
        with (
            tenant.client("keypad", [("seal", "key/pins")]) as keypad,
            LambdaRuntime(
                "app.handler",
                directory=HERE / "aws",
                environment=tenant.environment("pin-lambda"),
                name="pin-transfer",
            ) as function,
        ):
            yield PinCloud(
                tenant=tenant,
                function_digest=digest,
                keypad=keypad,
                function=function,
                cards=cards,
                storage=storage,
            )


def run(host: EmbeddedHost, ca: LocalCA, report: Callable[[str], None]) -> Summary:
    """Transfer one PIN.

    Raises:
        RuntimeError: The Lambda function failed, or the delivery did not arrive.
    """
    with pin_cloud(host, ca) as parties:
        event = transfer_event(parties.keypad, PIN, account=ACCOUNT)
        report("keypad: one PIN sealed for its account")
        result = parties.invoke(event)
        if result.error is not None:
            raise RuntimeError(f"the Lambda function failed: {result.error.message}")
        report("Lambda: the sealed PIN in, a token out")
        stored = json.loads(parties.wait_until_stored(result.payload["delivery"]))
        report(f"card application: the token delivered by the enclave ({parties.cards.runtime})")
        moved = move(parties)
        report(
            f"cloister transfer: {moved} sealed PINs of a file moved from one cloud to the other, each once"
        )
        return Summary(
            function_digest=parties.function_digest,
            pin_seen=event["pin"][:SHOWN_CHARS],
            token_seen=result.payload["token"],
            stored=stored,
            receipt=result.payload["receipt"],
            moved=moved,
            delivery_id=result.payload["delivery"],
            runtime=parties.cards.runtime,
        )


def move(cloud: PinCloud) -> int:
    """Move a file of sealed PINs, twice; the second run finds all of it done.

    Raises:
        RuntimeError: Something was not moved, or was moved twice.
    """
    with tempfile.TemporaryDirectory() as directory:
        source, state = Path(directory, "pins.jsonl"), Path(directory, "pins.state")
        events = [transfer_event(cloud.keypad, pin, account=account) for account, pin in MORE.items()]
        source.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        command, environment = cloud.transfer(source, state, "--json")
        for done, before in ((len(MORE), 0), (0, len(MORE))):
            shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            report = json.loads(shown.stdout)
            if (report["done"], report["before"]) != (done, before):
                raise RuntimeError("the file was not moved as it should have been")
        deliveries = [json.loads(line).get("delivery") for line in state.read_text().splitlines()]
    for delivery in filter(None, deliveries):
        cloud.wait_until_stored(delivery)
    return len(MORE)


def main(arguments: list[str]) -> int:
    """Run the workflow and show what each party saw."""
    if arguments:
        print(__doc__)
        return 2
    with (
        LocalCA() as ca,
        tempfile.TemporaryDirectory() as directory,
        embedded_host(
            Path(directory), egress_trust_anchors=[ca.pem_path], egress_allow_private_addresses=True
        ) as host,
    ):
        summary = run(host, ca, print)
    print(f"\n  Lambda handled    {summary.pin_seen}...")
    print(f"  Lambda got back   {summary.token_seen}")
    print(f"  Azure stored      {json.dumps(summary.stored)}")
    print(f"  as delivery       {summary.delivery_id}, under {summary.runtime}")
    print(f"  receipt           {summary.receipt}")
    print(f"  moved from a file {summary.moved}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
