"""Several hosts of one deployment in this process, each at a URL of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.attestation import AppraisalPolicy
from cloister.client import Client
from cloister.identity import ApiKey
from cloister.protocol.session import Response
from cloister.transport.stdlib import HttpTransport
from cloister_host.app import Host, build, initialize
from cloister_host.attester.settings import AttesterSettings
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.identity.caller import SYSTEM_TENANT
from cloister_host.server import running
from cloister_host.settings import HostSettings

__all__ = ["Deployment", "Replica", "Split"]


@dataclass(frozen=True)
class Replica:
    """A host that serves."""

    host: Host
    url: str


class Split:
    """A transport that attests at one host and sends to another, as behind a load balancer."""

    def __init__(self, attested: str, sent: str) -> None:
        self.attested, self.sent = HttpTransport(attested), HttpTransport(sent)

    def post(self, path: str, body: bytes, **how: Any) -> Response:
        return (self.sent if path == "/v1/sealed" else self.attested).post(path, body, **how)

    def close(self) -> None:
        self.attested.close()
        self.sent.close()


class Deployment:
    """One deployment: a root key, a database, and the API key of its operator."""

    def __init__(self, folder: Path, database: str = "", image: str = "image-1") -> None:
        self.folder = folder
        self.settings = HostSettings(
            state=folder / "state",
            database=database,
            attester=AttesterSettings(name="simulated"),
            accepted_sandboxes=frozenset({"process"}),  # quick to start
        )
        self.operator_key = initialize(self.settings, attester=SimulatedAttester(image))

    @contextmanager
    def replica(self, image: str = "image-1", **settings: Any) -> Iterator[Replica]:
        """Start a host whose evidence measures `image`."""
        from dataclasses import replace

        chosen = replace(self.settings, **settings)
        with build(chosen, attester=SimulatedAttester(image)) as host, running(host.app) as url:
            host.replicas.peers.add_door(url)
            host.replicas.peers.round()
            yield Replica(host, url)

    def policy(self, *images: str) -> AppraisalPolicy:
        return AppraisalPolicy.from_mapping(
            {
                "version": 1,
                "environment": "simulated",
                "tee": {"simulated": {"reference": [{"name": i, "measurement": i} for i in images]}},
            }
        )

    def client(self, transport: Any, *images: str, tenant: str = SYSTEM_TENANT, api_key: str = "") -> Client:
        """A client that accepts these images; the operator, unless told otherwise."""
        if isinstance(transport, str):
            transport = HttpTransport(transport)
        return Client(
            tenant=tenant,
            policy=self.policy(*(images or ("image-1",))),
            identity=ApiKey(api_key or self.operator_key),
            transport=transport,
        )
