"""How storage accounts are reached, and their errors without the names of containers and blobs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cloister.errors import CloisterError, ConfigurationError, DeniedError, UnavailableError

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

__all__ = ["call", "connect", "forget_clients", "unavailable"]

FORBIDDEN: Final = 403


def connect(setting: str) -> BlobServiceClient:
    """This process's client of the storage account whose connection string is in an app setting.

    Raises:
        ConfigurationError: It is not there.
    """
    try:
        return _service(os.environ.get(setting, ""))
    except ValueError:  # its message quotes the setting
        raise ConfigurationError(
            f"the app setting {setting} holds no connection string of a storage account"
        ) from None


def forget_clients() -> None:
    """Close what `connect` gave."""
    for service in _services:
        service.close()
    _drop()


_services: list[BlobServiceClient] = []


@functools.lru_cache(maxsize=8)
def _service(connection: str) -> BlobServiceClient:
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 (0.3 s, on the first use)

    service = BlobServiceClient.from_connection_string(connection)
    _services.append(service)
    return service


def _drop() -> None:
    _services.clear()
    _service.cache_clear()


# A forked child shares no connection with its parent.
os.register_at_fork(after_in_child=_drop)


def unavailable(error: Exception) -> UnavailableError:
    """What a storage account's failure becomes that says nothing of the blob."""
    return UnavailableError(f"blob storage did not answer ({type(error).__name__})")


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call the storage account.

    Raises:
        ConfigurationError: There is no such blob or container, or a condition is not met.
        DeniedError: The account refused.
        UnavailableError: It did not answer.
    """
    from azure.core.exceptions import (  # noqa: PLC0415 (0.3 s, on the first use)
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        ResourceExistsError,
        ResourceModifiedError,
        ResourceNotFoundError,
    )

    failure: CloisterError
    try:
        return function(*args, **options)
    except (ResourceExistsError, ResourceModifiedError):
        failure = ConfigurationError(
            "there already is a blob of that name, or it is another by now", hint="nothing was replaced"
        )
    except ResourceNotFoundError:
        failure = ConfigurationError("there is no such blob or container", hint="check both names")
    except ClientAuthenticationError:
        failure = DeniedError("the storage account refused")
    except HttpResponseError as error:
        refused = error.status_code == FORBIDDEN
        failure = DeniedError("the storage account refused") if refused else unavailable(error)
    except AzureError as error:
        failure = unavailable(error)
    raise failure
