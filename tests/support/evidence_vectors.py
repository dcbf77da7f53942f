"""The evidence vectors: which file is what, what goes with it, and when it is valid."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister import attestation
from cloister.attestation import Format

FOLDER = Path(__file__).parents[1] / "vectors" / "attestation"
TODAY = datetime(2026, 11, 24, tzinfo=UTC)


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Document:
    """A genuine document: accepted at `at`; `alive` says whether it still is at `TODAY`."""

    name: str
    format: Format
    at: datetime
    alive: bool
    debug: bool = False
    endorsements: tuple[str, ...] = ()
    collateral: str = ""
    trust_anchors: tuple[str, ...] = ()
    jwks: str = ""
    claims: dict[str, Any] = field(default_factory=dict)

    def authenticate(
        self, raw: bytes | None = None, at: datetime | None = None, **changes: Any
    ) -> attestation.AuthenticEvidence:
        support: dict[str, Any] = {
            "endorsements": [read(name) for name in self.endorsements],
            "collateral": read(self.collateral) if self.collateral else None,
            "trust_anchors": [read(name) for name in self.trust_anchors] or None,
            "jwks": read(self.jwks) if self.jwks else None,
        }
        arguments: dict[str, Any] = {"format": self.format, "at": at or self.at} | support | changes
        return attestation.authenticate(read(self.name) if raw is None else raw, **arguments)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _nitro(name: str, at: str, pcr0: str, *, debug: bool = False) -> Document:
    return Document(
        name=f"nitro/{name}.cose",
        format=Format.NITRO,
        at=_at(at),
        alive=False,
        debug=debug,
        claims={"pcr0": pcr0},
    )


def _snp(name: str, measurement: str, *, alive: bool = True, debug: bool = False) -> Document:
    return Document(
        name=f"snp/{name}.report.bin",
        format=Format.SEV_SNP,
        at=_at("2025-09-01T00:00:00Z"),
        alive=alive,
        debug=debug,
        endorsements=(f"snp/{name}.cert.der",),
        claims={"measurement": measurement},
    )


VM_CONFIGURATION = {
    "console-enabled": True,
    "secure-boot": True,
    "tpm-enabled": True,
    "vmUniqueId": "7DF7B373-B947-4AAA-96E5-C358F2A03D20",
}
DOCUMENTS = (
    _nitro(
        "g_2021-03-17_prod",
        "2021-03-17T22:01:55.685Z",
        "2d151586641b790f3b1b92b8f89678c3aa86e73dd97969c892124be9d2b7fdc62b58a55cd9ee8216f6f5689cebf590ad",
    ),
    _nitro("g_2022-10-12_debug", "2022-10-12T13:50:06.081Z", "00" * 48, debug=True),
    _nitro(
        "g_2022-10-13_prod",
        "2022-10-13T08:58:02.136Z",
        "f4d48b81a460c9916d1e685119074bf24660afd3e34fae9fca0a0d28d9d5599936332687e6f66fc890ac8cf150142d8b",
    ),
    _nitro(
        "g_2022-11-09_prod",
        "2022-11-09T22:52:00.696Z",
        "22f9e1c949208da55eb01b9b9fc88f87454f77ba133f0d82320b509621c92482152a99d0a12335b97178c02d6f977d01",
    ),
    _nitro(
        "g_2024-12-13_prod_pubkey",
        "2024-12-13T07:37:58.960Z",
        "189038eccf28a3a098949e402f3b3d86a876f4915c5b02d546abb5d8c507ceb1755b8192d8cfca66e8f226160ca4c7a6",
    ),
    _nitro(
        "g_2025-12-25_prod_indefinite",
        "2025-12-25T16:04:19.346Z",
        "eb7d0dab08ff41546d7e5659aee883af7b32bb2e58e46815b719f9f7bfae7b880188a10d86317e6509923740526cf74a",
    ),
    _snp(
        "v2_milan_vcek",
        "7a1e5c266c0108dbc9bb94fa926951320940915d0aafb42464bd88b579ea158d3e1a0dc39b2c60bd95b9c480cd81841f",
    ),
    _snp(
        "v2_milan_vcek_debug",
        "b07af9620f3b839b47996422ddec6058338951d984e312115131ea82705eaf5b6bdf8a9ece31a5a608eb0cf2e4872b01",
        debug=True,
    ),
    _snp(
        "v3_milan_vlek_aws",
        "8922ebbdd00ec2c541f36a6e7a82a8773a7accb451ed67bc94e740dbe92c93c4e8c9af857f5ceeb5a493df2a570d7bf0",
        alive=False,
    ),
    _snp(
        "v5_genoa_vcek",
        "c57729018b0a6fb90dc17bb138b0aa35e4401004283ff4a2c24d3739ff3750f52384370e77b7032862a08c440a9bc4dc",
    ),
    Document(
        name="tdx/v4_spr.quote.bin",
        format=Format.TDX,
        at=_at("2025-06-25T00:00:00Z"),
        alive=True,
        claims={
            "mr_td": "6363b8043668a3ad953278e10389574d326c6749fb78aa810ecd9336923db86f"
            "22fc00b8dcd404bc10d5e119d7215cbb",
            "sept_ve_disable": False,
        },
    ),
    Document(
        name="tdx/v5_a.quote.bin",
        format=Format.TDX,
        at=_at("2026-03-01T00:00:00Z"),
        alive=True,
        claims={
            "mr_td": "7348651a34b2d2d3462822e3a750ec6110125f36757c78480bbfc69cc0d21fb0"
            "01a1ced3ee19747dda8f750c3bc8f876",
            "sept_ve_disable": True,
            "fmspc": "90c06f000000",
        },
    ),
    Document(
        name="tdx/v4_with_collateral.quote.bin",
        format=Format.TDX,
        at=_at("2025-06-25T00:00:00Z"),
        alive=False,
        collateral="tdx/v4_with_collateral.collateral.json",
        claims={"tcb_status": "UpToDate", "advisories": [], "fmspc": "b0c06f000000", "pce_svn": 11},
    ),
    Document(
        name="sgx/v3_with_collateral.quote.bin",
        format=Format.SGX,
        at=_at("2025-06-25T00:00:00Z"),
        alive=False,
        collateral="sgx/v3_with_collateral.collateral.json",
        claims={
            "mr_enclave": "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb",
            "tcb_status": "ConfigurationAndSWHardeningNeeded",
            "advisories": ["INTEL-SA-00289", "INTEL-SA-00615"],
        },
    ),
    Document(
        name="tpm/vaportpm_gcp-amd.json",
        format=Format.TPM,
        at=_at("2026-03-01T00:00:00Z"),
        alive=True,
        claims={
            "ak": "certificate",
            "pcr14": "306f9d8b94f17d93dc6e7cf8f5c79d652eb4c6c4d13de2dddc24af416e13ecaf",
        },
    ),
    Document(
        name="tpm/az_snp_quote.json",
        format=Format.TPM,
        at=_at("2024-01-01T00:00:00Z"),
        alive=True,
        trust_anchors=("tpm/az_snp_hcl_report.bin",),
        claims={"ak": "pinned", "pcr0": "f3a7e99a5f819a034386bce753a48a73cfdaa0bea0ecfc124bedbf5a8c4799be"},
    ),
    Document(
        name="tpm/az_snp_evidence_v2.json",
        format=Format.AZURE_VTPM,
        at=_at("2026-01-01T00:00:00Z"),
        alive=True,
        claims={"ak": "hcl-sev-snp", "vm_configuration": VM_CONFIGURATION},
    ),
    Document(
        name="tpm/vaportpm_nitro.json",
        format=Format.TPM,
        at=_at("2026-02-02T07:28:28.379Z"),
        alive=False,
        claims={"ak": "nitro-tpm", "pcr_bank": "sha384"},
    ),
    Document(
        name="nitro/g_2026-02-02_nitrotpm.cose",
        format=Format.NITRO_TPM,
        at=_at("2026-02-02T07:28:28.379Z"),
        alive=False,
        claims={"module_id": "i-0082f89b039c97a0f-tpm0000000000000000"},
    ),
    Document(
        name="maa/azurevm_2023_weu.jwt",
        format=Format.AZURE_MAA,
        at=_at("2023-03-30T12:00:00Z"),
        alive=False,
        jwks="maa/jwks_sharedweu.json",
        claims={"x-ms-attestation-type": "azurevm"},
    ),
    Document(
        name="gcp_cs/oidc_2025-12-02_a.jwt",
        format=Format.GCP_CONFIDENTIAL_SPACE,
        at=_at("2025-12-02T21:00:00Z"),
        alive=False,
        debug=True,
        jwks="gcp_cs/jwks.json",
        claims={"hwmodel": "GCP_AMD_SEV"},
    ),
)
BY_NAME = {document.name: document for document in DOCUMENTS}
