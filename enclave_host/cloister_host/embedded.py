"""A real host inside this process, for tests and demonstrations.

Sealed requests, attestation (simulated), a database on disk: everything is as in `cloister host serve`.
What it needs is imported when it runs, so that the pytest plugin over it costs nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloister.client import Client
    from cloister_host.app import Host
    from cloister_host.deliveries.schedule import Schedule

__all__ = ["EmbeddedHost", "Tenant", "embedded_host"]

Grant = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant of an embedded host, seen by its administrator."""

    host: EmbeddedHost
    name: str
    admin: Client

    def key_file(self, principal: str) -> Path:
        """The file with a principal's API key."""
        return self.host.directory / f"{self.name}-{principal}.key"

    def principal(self, name: str, grants: Sequence[Grant] = (), *, kind: str = "service") -> Path:
        """Create a principal with grants of (action, resource); gives its API key file."""
        from cloister._cli._client import write_private  # noqa: PLC0415 (imported when it runs)

        result = self.admin.call("principal.create", {"principal": name, "kind": kind})
        write_private(self.key_file(name), result["api_key"])
        for action, resource in grants:
            self.admin.call("grant.create", {"principal": name, "action": action, "resource": resource})
        return self.key_file(name)

    def client(self, name: str, grants: Sequence[Grant] = (), *, kind: str = "service") -> Client:
        """A client as a new principal with grants of (action, resource)."""
        self.principal(name, grants, kind=kind)
        return self.host.client(self.name, self.key_file(name))

    def environment(self, principal: str) -> dict[str, str]:
        """The settings of a principal, as environment variables for another process."""
        return {
            "CLOISTER_URL": self.host.url,
            "CLOISTER_TENANT": self.name,
            "CLOISTER_POLICY": str(self.host.policy),
            "CLOISTER_API_KEY_FILE": str(self.key_file(principal)),
        }

    def deploy(
        self, directory: Path | str, settings: Mapping[str, str] | None = None, *, alias: str = "prod"
    ) -> Mapping[str, Any]:
        """Deploy a confidential function and grant it what it needs."""
        from cloister import jose  # noqa: PLC0415 (imported when it runs)
        from cloister.function.bundle import build_bundle  # noqa: PLC0415 (imported when it runs)

        bundle = build_bundle(Path(directory), settings or {})
        payload = {"bundle": jose.b64url_encode(bundle.data), "alias": alias}
        result = self.admin.call("function.deploy", payload)
        for need in result["needs"]:
            self.admin.call("grant.create", {"principal": f"function:{result['digest']}", **need})
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedHost:
    """A host that serves on loopback from this process."""

    url: str
    directory: Path
    host: Host
    operator: Client

    @property
    def policy(self) -> Path:
        """The appraisal policy for its clients."""
        return self.directory / "policy.toml"

    def tenant(self, name: str | None = None) -> Tenant:
        """Create a tenant."""
        from cloister._cli._client import write_private  # noqa: PLC0415 (imported when it runs)

        name = name or f"t-{secrets.token_hex(4)}"
        result = self.operator.call("tenant.create", {"tenant": name})
        key_file = self.directory / f"{name}-admin.key"
        write_private(key_file, result["api_key"])
        return Tenant(host=self, name=name, admin=self.client(name, key_file))

    def client(self, tenant: str, key_file: Path) -> Client:
        """A client with an API key from a file."""
        from cloister.client import Client  # noqa: PLC0415 (imported when it runs)

        return Client.from_env(
            url=self.url, tenant=tenant, policy=str(self.policy), api_key_file=str(key_file), identity="key"
        )


@contextmanager
def embedded_host(
    directory: Path,
    *,
    database: str = "",
    anchor: Path | None = None,
    egress_trust_anchors: Sequence[Path] = (),
    egress_allow_private_addresses: bool = False,
    deliveries: Schedule | None = None,
    witness: tuple[str, str] | None = None,
) -> Iterator[EmbeddedHost]:
    """Run a host in this process.

    Args:
        directory: New, or with the state of an earlier run.
        database: As in `HostSettings`.
        anchor: As in `HostSettings`.
        egress_trust_anchors: As in `HostSettings`.
        egress_allow_private_addresses: As in `HostSettings`.
        deliveries: A schedule for tests that do not wait for the usual one.
        witness: As in `HostSettings`.
    """
    from cloister._cli._client import write_private  # noqa: PLC0415 (imported when it runs)
    from cloister_host.app import build, initialize  # noqa: PLC0415 (imported when it runs)
    from cloister_host.attester.settings import AttesterSettings  # noqa: PLC0415 (imported when it runs)
    from cloister_host.deliveries.schedule import Schedule  # noqa: PLC0415 (imported when it runs)
    from cloister_host.development import client_of, policy_text  # noqa: PLC0415 (imported when it runs)
    from cloister_host.identity.caller import SYSTEM_TENANT  # noqa: PLC0415 (imported when it runs)
    from cloister_host.server import running  # noqa: PLC0415 (imported when it runs)
    from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings  # noqa: PLC0415 (imported when it runs)

    settings = HostSettings(
        state=directory / "state",
        database=database,
        anchor=anchor,
        attester=AttesterSettings(name="simulated"),
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
        egress_trust_anchors=tuple(egress_trust_anchors),
        egress_allow_private_addresses=egress_allow_private_addresses,
        deliveries=deliveries or Schedule(),
        witness=witness,
    )
    operator_key = directory / "operator.key"
    if not operator_key.exists():
        write_private(operator_key, initialize(settings))
    with build(settings) as host, running(host.app) as url:
        (directory / "policy.toml").write_text(policy_text(host), encoding="utf-8")
        key = operator_key.read_text(encoding="ascii").strip()
        with client_of(host, url, tenant=SYSTEM_TENANT, api_key=key) as operator:
            yield EmbeddedHost(url=url, directory=directory, host=host, operator=operator)
