"""Settings of the host, as `cloister host serve` takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloister_host.attester.settings import AttesterSettings
from cloister_host.deliveries.schedule import Schedule
from cloister_host.functions.sandbox.choose import Level
from cloister_host.relay import Endpoint
from cloister_host.unseal.settings import KmsSettings, Pkcs11Settings, ShamirSettings, Tpm2Settings

__all__ = ["DEVELOPMENT_SANDBOXES", "MAX_REQUEST_BYTES", "HostSettings"]

DEVELOPMENT_SANDBOXES: Final[frozenset[Level]] = frozenset({"namespaces", "process"})
MAX_REQUEST_BYTES: Final = 96 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What a host is started with.

    Attributes:
        state: Directory of the embedded default: database, sealed root key.
        database: URL of a PostgreSQL database, or of another SQLite file; the embedded one if empty.
        database_timeout_seconds: After so long without an answer the database counts as lost, and every
            request ends: what a revocation could have changed is answered for no longer.
        anchor: File outside the database's and its backups' reach that tells whether the store was rolled
            back. Without one, a rollback while no host runs is not noticed, and the configuration says so.
        attester: How this host proves what it is; by default the strongest TEE that answers.
        unseal: The provider that seals the root key: `file`, `pkcs11`, `shamir`, `tpm2`, `aws-kms`,
            `gcp-kms` or `azure-keyvault`.
        pkcs11: Where the provider `pkcs11` finds its key.
        shamir: The shares of the provider `shamir`.
        tpm2: The TPM of the provider `tpm2`, and the boot states it unseals in.
        kms: The key of the providers `aws-kms`, `gcp-kms` and `azure-keyvault`.
        accept_file_unseal: Let the unseal provider `file` seal a root outside a simulation. It is
            attested, and production policies refuse it.
        threads: How many requests are worked on at once; a call of a function that waits takes one too.
        max_request_bytes: Largest sealed request.
        egress_trust_anchors: PEM files of authorities trusted for egress beside the public ones.
        egress_allow_private_addresses: Let egress reach loopback and private addresses. A debug
            switch: it is attested, and production policies refuse it.
        outbound: Where the parent's proxy listens, in an enclave without a network: `vsock:3:5000`.
        accepted_sandboxes: Sandbox levels that may run functions; the strongest this machine gives is
            used, and attested. Less than `namespaces` has to be accepted by name.
        accepted_missing_layers: Layers of the sandbox `namespaces` that this machine may lack, by name
            (`net`, `ipc`, `uts`, `cgroup`, `landlock`, `seccomp`). What is missing is attested.
        deliveries: When deliveries that failed are sent again.
        witness: URL and public key of the witness that cosigns tree heads. Its name is attested.
        doors: URLs at which other hosts of the deployment reach this one.
        peers: URLs of other hosts, beside those that the store names.
        workers: How many processes on this machine share the store's file and the anchor.
        alone: Neither ask other hosts for keys nor tell them of this one: for what looks at a deployment
            without serving it.
    """

    state: Path
    database: str = field(default="", repr=False)
    database_timeout_seconds: float = 15.0
    anchor: Path | None = None
    attester: AttesterSettings = field(default_factory=AttesterSettings)
    unseal: str = "file"
    pkcs11: Pkcs11Settings = field(default_factory=Pkcs11Settings)
    shamir: ShamirSettings = field(default_factory=ShamirSettings)
    tpm2: Tpm2Settings = field(default_factory=Tpm2Settings)
    kms: KmsSettings = field(default_factory=KmsSettings)
    accept_file_unseal: bool = False
    threads: int = 96
    max_request_bytes: int = MAX_REQUEST_BYTES
    egress_trust_anchors: tuple[Path, ...] = field(default=())
    egress_allow_private_addresses: bool = False
    outbound: str = ""
    accepted_sandboxes: frozenset[Level] = frozenset({"namespaces"})
    accepted_missing_layers: frozenset[str] = frozenset()
    deliveries: Schedule = field(default_factory=Schedule)
    witness: tuple[str, str] | None = None
    doors: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    workers: int = 1
    alone: bool = False

    @property
    def database_url(self) -> str:
        """Where the store is."""
        return self.database or f"sqlite:///{self.state.resolve() / 'cloister.db'}"

    @property
    def way_out(self) -> Endpoint | None:
        """Where the parent's proxy listens, if there is one.

        Raises:
            ConfigurationError: It is no endpoint.
        """
        return Endpoint.parse(self.outbound) if self.outbound else None

    @property
    def unseal_key(self) -> Path:
        """The key file of the unseal provider `file`."""
        return self.state / "unseal.key"
