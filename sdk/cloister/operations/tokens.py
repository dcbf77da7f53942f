"""Tokens in place of values, and values in place of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloister.operations.driving import Flow, Operations, operation
from cloister.reply import Results, Token

__all__ = ["TokenOperations"]


class TokenOperations(Operations):
    """The part of a client that works with tokens."""

    @operation
    def tokenize(
        self,
        policy: str,
        values: Sequence[str],
        *,
        tweaks: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Flow[Results[Token]]:
        """Replace values by tokens of a policy (right `tokenize`).

        Args:
            policy: Its name.
            values: At most 10,000.
            tweaks: One a value, where the policy wants them from its caller.
            idempotency_key: Constant over the caller's own retries.
            purpose: What for. It is recorded, and grants can depend on it.
        """
        payload: dict[str, Any] = {"policy": policy, "values": list(values), **_tweaks(tweaks)}
        result = yield from self._flows.call(
            "token.tokenize", payload, idempotency_key=idempotency_key, purpose=purpose
        )
        return Results(map(Token, result["tokens"]), of=[result])

    @operation
    def detokenize(
        self,
        policy: str,
        tokens: Sequence[str],
        *,
        tweaks: Sequence[str] | None = None,
        purpose: str | None = None,
    ) -> Flow[Results[str | None]]:
        """Give the values behind tokens, masked as the policy says; `None` where there is none."""
        payload: dict[str, Any] = {"policy": policy, "tokens": list(tokens), **_tweaks(tweaks)}
        result = yield from self._flows.call("token.detokenize", payload, purpose=purpose)
        return Results(result["values"], of=[result])


def _tweaks(tweaks: Sequence[str] | None) -> Mapping[str, list[str]]:
    return {} if tweaks is None else {"tweaks": list(tweaks)}
