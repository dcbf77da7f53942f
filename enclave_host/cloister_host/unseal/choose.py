"""Which unseal provider the settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloister.errors import ConfigurationError
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.parts import AttesterParts
from cloister_host.settings import HostSettings
from cloister_host.unseal import Unseal
from cloister_host.unseal.aws_kms import AwsKms
from cloister_host.unseal.azure_keyvault import AzureKeyVault
from cloister_host.unseal.collecting import ShareCollector
from cloister_host.unseal.file import FileUnseal
from cloister_host.unseal.gcp_kms import GcpKms
from cloister_host.unseal.kms import KmsUnseal
from cloister_host.unseal.pkcs11 import Pkcs11Unseal
from cloister_host.unseal.shamir import ShamirUnseal
from cloister_host.unseal.tpm2 import Tpm2Unseal

__all__ = ["create_unseal", "open_unseal"]


def create_unseal(settings: HostSettings, parts: AttesterParts | None = None) -> Unseal:
    """Set the provider up for a new deployment.

    Args:
        settings: Which provider, and its settings.
        parts: What attests to this machine; without it no provider can be used that releases keys, and no
            operator can bring shares, to what is attested.

    Raises:
        ConfigurationError: It is set up already, cannot be used, or no provider has this name.
        UnavailableError: It cannot answer now.
    """
    match settings.unseal:
        case "file":
            return FileUnseal.create(settings.unseal_key)
        case "pkcs11":
            return Pkcs11Unseal.create(settings.pkcs11)
        case "shamir":
            return ShamirUnseal.create(settings.shamir)
        case _:
            return open_unseal(settings, parts)


def open_unseal(settings: HostSettings, parts: AttesterParts | None = None) -> Unseal:
    """The provider that sealed the root key of this deployment; as `create_unseal`.

    Raises:
        ConfigurationError: Its settings are incomplete, or no provider has this name.
    """
    make: Mapping[str, Callable[[], Unseal]] = {
        "file": lambda: FileUnseal(settings.unseal_key),
        "pkcs11": lambda: Pkcs11Unseal(settings.pkcs11),
        "shamir": lambda: ShamirUnseal(settings.shamir, _collector(settings, parts)),
        "tpm2": lambda: Tpm2Unseal(settings.tpm2),
        "aws-kms": lambda: KmsUnseal(AwsKms(settings.kms, _recipient(parts))),
        "gcp-kms": lambda: KmsUnseal(GcpKms(settings.kms)),
        "azure-keyvault": lambda: KmsUnseal(AzureKeyVault(settings.kms)),
    }
    if settings.unseal not in make:
        raise ConfigurationError(
            f"there is no unseal provider {settings.unseal!r}", hint=f"--unseal {', '.join(make)}"
        )
    return make[settings.unseal]()


def _collector(settings: HostSettings, parts: AttesterParts | None) -> ShareCollector | None:
    if not settings.shamir.collect:
        return None
    if parts is None:
        raise ConfigurationError("this command takes shares as files alone", hint="--share FILE")
    return ShareCollector(
        address=settings.shamir.collect, attester=parts.attester, endorsements=parts.endorser.current
    )


def _recipient(parts: AttesterParts | None) -> NitroAttester:
    if parts is not None and isinstance(parts.attester, NitroAttester):
        return parts.attester
    raise ConfigurationError(
        "the unseal provider `aws-kms` releases the root key to Nitro enclaves alone",
        hint="run the host in one, with --attester nitro",
    )
