"""Who is shown how much of what a token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cloister.errors import ConfigurationError
from cloister.mask import DENIED, MASKED, PLAIN, View
from cloister_host.identity.caller import Caller
from cloister_host.tokenization.policies import ViewRule

__all__ = ["ViewTable"]

_EVERYBODY: Final = "*"


class ViewTable:
    """The views of one policy. The first rule that names a reader holds; the rest is denied.

    Args:
        rules: As in the policy. Without any, readers see plain values where their grant says so.
        mask: The pattern for readers whose grant is for masked values and whom no rule names.

    Raises:
        ConfigurationError: A pattern cannot be read, or FaaS functions would be shown plain values.
    """

    def __init__(self, rules: Sequence[ViewRule], mask: str | None) -> None:
        self._views: dict[str, View] = {}
        for rule in rules:
            view = View(rule.show, rule.pattern)
            if view == PLAIN and "kind:faas" in rule.to:
                raise ConfigurationError(
                    "FaaS functions are never shown plain values",
                    hint="use show masked, or a confidential function",
                )
            for audience in rule.to:
                self._views.setdefault(audience, view)
        self._order = {audience: place for place, audience in enumerate(self._views)}
        self._mask: Final = MASKED(mask) if mask is not None else None

    def plain_allowed(self, caller: Caller) -> View:
        """The view of a reader with a grant for plain values."""
        view = self._found(caller) or (DENIED if self._views else PLAIN)
        return self._guard(caller, view)

    def masked_only(self, caller: Caller) -> View:
        """The view of a reader with a grant for masked values: never plain."""
        view = self._found(caller) or (DENIED if self._views or self._mask is None else self._mask)
        if view == PLAIN:
            view = self._mask or DENIED
        return view

    def _found(self, caller: Caller) -> View | None:
        names = [caller.principal, f"kind:{caller.kind}", _EVERYBODY]
        named = [name for name in names if name in self._views]
        return self._views[min(named, key=self._order.__getitem__)] if named else None

    def _guard(self, caller: Caller, view: View) -> View:
        # Above every rule and grant (PROTOCOL 2): a principal of this kind may be newer than the rule.
        if caller.kind == "faas" and view == PLAIN:
            return self._mask or DENIED
        return view
