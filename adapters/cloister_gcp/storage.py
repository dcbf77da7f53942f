"""The edge of Cloud Storage's client, which is imported when it is used: it takes a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloister.errors import CloisterError, ConfigurationError, DeniedError, UnavailableError

__all__ = ["refused", "typed_call"]


def typed_call(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call Cloud Storage; its errors without the names of bucket and object."""
    import requests  # noqa: PLC0415 (on the first use)
    from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 (on the first use)
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 (on the first use)

    failure: CloisterError
    try:
        return call(*args, **options)
    except GoogleAPICallError as error:
        failure = refused(int(error.code or 0))
    except GoogleAuthError:
        failure = DeniedError("Google refused the credentials")
    except requests.RequestException as error:
        failure = UnavailableError(f"Cloud Storage did not answer ({type(error).__name__})")
    raise failure


def refused(status: int) -> CloisterError:
    """The error for an HTTP status of Cloud Storage."""
    match status:
        case 412:
            return ConfigurationError(
                "there already is an object of that name, or it is another by now",
                hint="nothing was replaced",
            )
        case 404 | 410:
            return ConfigurationError("there is no such object, bucket or upload in Cloud Storage")
        case 401 | 403:
            return DeniedError("Cloud Storage refused")
        case _:
            return UnavailableError(f"Cloud Storage did not answer ({status})")
