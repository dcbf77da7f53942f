"""What `@seal_fields` and `@mask_fields` do to an event and to a response, on every platform."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cloister.errors import ConfigurationError
from cloister.faas.fields import FieldSealer, OnMissing, Sealer
from cloister.faas.shared import shared_client
from cloister.mask import Mask, View

__all__ = ["Change", "Changes", "Through", "masking", "sealing"]

Change = Callable[[Any], Any]


class Through(Protocol):
    """Port: how a platform's events and responses carry JSON.

    Applies `change` to a document with the JSON it carries as text decoded, and encodes that again. Texts
    that no path `leads_into` may be left alone.
    """

    def __call__(self, document: Any, change: Change, *, leads_into: Callable[[Sequence[str]], bool]) -> Any:
        """A changed copy of the document."""
        ...


class Changes(NamedTuple):
    """What happens before a handler and after it; None is nothing."""

    event: Change | None
    response: Change | None


def sealing(
    *,
    event: Mapping[str, str] | None,
    response: Mapping[str, str] | None,
    context: Mapping[str, str] | None,
    on_missing: OnMissing,
    client: Sealer | None,
    through: Through,
) -> Changes:
    """Sealing of the fields at these paths under these keys.

    Raises:
        ConfigurationError: A path or a key's name cannot be read, or there is none.
    """
    if not event and not response:
        raise ConfigurationError("there are no fields to seal", hint="give event= or response=")

    def of(keys: Mapping[str, str] | None) -> Change | None:
        if not keys:
            return None
        sealer = FieldSealer(keys, context=context, on_missing=on_missing)

        def seal(document: Any) -> Any:
            return sealer.apply(document, client if client is not None else shared_client())

        return lambda document: through(document, seal, leads_into=sealer.leads_into)

    return Changes(of(event), of(response))


def masking(
    *,
    event: Mapping[str, View] | None,
    response: Mapping[str, View] | None,
    default: View,
    through: Through,
) -> Changes:
    """Masking of the fields at these paths.

    Raises:
        ConfigurationError: A path cannot be read, or there is none.
    """
    if event is None and response is None:
        raise ConfigurationError("there are no fields to mask", hint="give event= or response=")

    def of(views: Mapping[str, View] | None) -> Change | None:
        if views is None:
            return None
        mask = Mask(views, default=default)
        return lambda document: through(document, mask.apply, leads_into=mask.leads_into)

    return Changes(of(event), of(response))
