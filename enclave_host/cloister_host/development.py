"""What a developer needs around a host: a policy for clients, a tenant, settings in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cloister._cli._client import write_private
from cloister.attestation import AppraisalPolicy, Format
from cloister.client import Client
from cloister.identity import ApiKey
from cloister.transport.stdlib import HttpTransport
from cloister_host.app import Host, build, initialize
from cloister_host.identity.caller import SYSTEM_TENANT
from cloister_host.server import running
from cloister_host.settings import HostSettings

__all__ = ["DEVELOPER_RIGHTS", "client_of", "policy_text", "prepare"]

DEVELOPER_RIGHTS: Final = ("seal", "decrypt", "unwrap", "invoke", "tokenize", "detokenize")
"""What a tenant's `admin` does not have by itself; in development it gets them."""


def policy_text(host: Host) -> str:
    """The appraisal policy that accepts this deployment, this image and this configuration only."""
    config = host.keysets.keyset().config
    accepted = {
        "unseal": config["unseal"],
        "store": config["store"],
        "anchor": config["anchor"],
        "debug": config["debug"],
        "root.environment": config["root"]["environment"],
        "sandbox.level": config["sandbox"]["level"],
        "sandbox.missing": config["sandbox"]["missing"],
    }
    environment = config["root"]["environment"]
    anchors = [anchor.decode("ascii") for anchor in host.trust_anchors or () if anchor.isascii()]
    lines = [
        "# Which enclave host clients accept; see docs/attestation.md.",
        "version = 1",
        f"environment = {json.dumps(environment)}",
        f"deployment = {json.dumps(host.deployment)}",
        *([f"trust_anchors = {json.dumps(anchors)}"] if environment == "test" else []),
        "",
        *_tee_lines(host),
        "",
        "[config]",
        *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in accepted.items()),
    ]
    return "\n".join(lines) + "\n"


def _tee_lines(host: Host) -> list[str]:
    machine = host.machine
    lines = [f"[tee.{machine.format}]"]
    if machine.minimum:
        lines.append(f"minimum = {_inline(machine.minimum)}")
    if machine.format is Format.GCP_CONFIDENTIAL_SPACE:
        lines.append(f"require = {_inline({'aud': f'cloister:{host.deployment}'})}")
    return [
        *lines,
        f"[[tee.{machine.format}.reference]]",
        'name = "this image"',
        *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in machine.measurements.items()),
    ]


def _inline(table: Mapping[str, Any]) -> str:
    return (
        "{ " + ", ".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in table.items()) + " }"
    )


def client_of(host: Host, url: str, *, tenant: str, api_key: str) -> Client:
    """A client of a host in this process; it appraises the host like any other client."""
    return Client(
        tenant=tenant,
        policy=AppraisalPolicy.from_toml(policy_text(host)),
        identity=ApiKey(api_key),
        transport=HttpTransport(url),
    )


def prepare(settings: HostSettings, *, tenant: str, url: str, profile: Path) -> None:
    """Make what is missing: root key, tenant with an `admin` that may do everything, `cloister.toml`."""
    operator_file, admin_file = settings.state / "operator.key", settings.state / f"{tenant}.key"
    if not operator_file.exists():
        write_private(operator_file, initialize(settings))
    with build(settings) as host:
        (settings.state / "policy.toml").write_text(policy_text(host), encoding="utf-8")
        if not admin_file.exists():
            operator_key = operator_file.read_text(encoding="ascii").strip()
            write_private(admin_file, _create_tenant(host, tenant, operator_key))
    if not profile.exists():
        values = {
            "url": url,
            "tenant": tenant,
            "policy": str(settings.state / "policy.toml"),
            "api_key_file": str(admin_file),
        }
        lines = ["[default]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        profile.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _create_tenant(host: Host, tenant: str, operator_key: str) -> str:
    with running(host.app) as url:
        with client_of(host, url, tenant=SYSTEM_TENANT, api_key=operator_key) as operator:
            api_key = str(operator.call("tenant.create", {"tenant": tenant})["api_key"])
        with client_of(host, url, tenant=tenant, api_key=api_key) as admin:
            for action in DEVELOPER_RIGHTS:
                admin.call("grant.create", {"principal": "admin", "action": action, "resource": "*"})
    return api_key
