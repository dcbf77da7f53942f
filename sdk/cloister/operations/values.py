"""Seal and open values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloister import jose
from cloister.envelope import Sealed, Value, authored
from cloister.errors import ConfigurationError, OpenError
from cloister.operations.driving import Flow, Operations, operation
from cloister.operations.flows import Context, Flows, bound_context
from cloister.protocol.public_key import PublicKey
from cloister.reply import Results

__all__ = ["ValueOperations"]

OPEN_CHUNK: Final = 10_000


class ValueOperations(Operations):
    """The part of a client that works with values."""

    @operation
    def seal(
        self,
        value: Value,
        *,
        key: str,
        context: Context | None = None,
        key_context: Context | None = None,
        signer: Mapping[str, Any] | None = None,
    ) -> Flow[Sealed]:
        """Seal one value under a tenant's key.

        Args:
            value: bytes, text or JSON; opens as the same type.
            key: Name of a key with purpose `seal`.
            context: What the value belongs to, for example `{"customer": "17"}`; the value opens only
                where the same context is given.
            key_context: The part of the context that all values of one data key share.
            signer: Private key (JWK) of a registered author, for functions that ask who wrote a value;
                what opens is then the signed statement (`cloister.envelope.open_authored`).

        Raises:
            DeniedError: No grant for `seal` on this key.
        """
        sealed = yield from _seal(
            self._flows, [value], [context], key=key, key_context=key_context, signer=signer
        )
        return sealed[0]

    @operation
    def seal_many(
        self,
        values: Sequence[Value],
        *,
        key: str,
        contexts: Sequence[Context | None] | None = None,
        key_context: Context | None = None,
        signer: Mapping[str, Any] | None = None,
    ) -> Flow[list[Sealed]]:
        """Seal many values; `contexts` holds one context a value. See `seal`."""
        each = _one_each(contexts, values)
        return (yield from _seal(self._flows, values, each, key=key, key_context=key_context, signer=signer))

    @operation
    def open(self, sealed: str, *, context: Context | None = None, purpose: str | None = None) -> Flow[Value]:
        """Have the host open one value (right `decrypt`).

        Args:
            sealed: The value.
            context: What it was sealed with.
            purpose: What for. It is recorded, and grants can depend on it.

        Raises:
            OpenError: Wrong context, key or value.
            DeniedError: No grant for `decrypt` on the value's key.
        """
        opened = yield from _open(self._flows, [sealed], [context], purpose)
        return opened[0]

    @operation
    def open_many(
        self,
        values: Sequence[str],
        *,
        contexts: Sequence[Context | None] | None = None,
        purpose: str | None = None,
    ) -> Flow[Results[Value]]:
        """Have the host open many values (right `decrypt`, one audit entry a value). See `open`."""
        return (yield from _open(self._flows, values, _one_each(contexts, values), purpose))

    @operation
    def open_column(
        self,
        values: Sequence[str],
        *,
        contexts: Sequence[Context | None] | None = None,
        purpose: str | None = None,
    ) -> Flow[list[Value]]:
        """Open many values here, under data keys that the host unwraps (right `unwrap`).

        One audit entry a data key; one that was unwrapped a moment ago is not asked for again, whatever the
        purpose is now.
        """
        flows, opened = self._flows, list[Value]()
        for text, context in zip(values, _one_each(contexts, values), strict=True):
            sealed = Sealed(text)
            kid, encrypted_key = sealed.kid, sealed.encrypted_key
            content = flows.opened.get(kid, encrypted_key, now=flows.clock())
            if content is None:
                cek = yield from flows.unwrap(kid, encrypted_key, sealed.header.ek, purpose=purpose)
                content = flows.opened.add(kid, encrypted_key, cek, now=flows.clock())
            opened.append(content.open(sealed, context))
        return opened

    @operation
    def public_key(self, key: str) -> Flow[PublicKey]:
        """The public half of a key, for `cloister.envelope.seal_to` on machines without a host."""
        result = yield from self._flows.call("key.public", {"key": key})
        return (yield from self._flows.vouched_for(result["statement"]))


def _seal(
    flows: Flows,
    values: Sequence[Value],
    contexts: Sequence[Context | None],
    *,
    key: str,
    key_context: Context | None,
    signer: Mapping[str, Any] | None,
) -> Flow[list[Sealed]]:
    bound = [bound_context(context, key_context) for context in contexts]
    if signer is not None:
        values = [
            authored(value, signer=signer, tenant=flows.tenant, key=key, context=context)
            for value, context in zip(values, bound, strict=True)
        ]
    dek = yield from flows.lease(key, key_context, messages=len(values), size_bytes=sum(map(_size, values)))
    return [dek.seal(value, context) for value, context in zip(values, bound, strict=True)]


def _open(
    flows: Flows, values: Sequence[str], contexts: Sequence[Context | None], purpose: str | None
) -> Flow[Results[Value]]:
    items: list[dict[str, Any]] = [{"sealed": str(Sealed(value))} for value in values]
    for item, context in zip(items, contexts, strict=True):
        if context is not None:
            item["context"] = dict(context)
    opened, results = list[Value](), list[Mapping[str, Any]]()
    for start in range(0, len(items), OPEN_CHUNK):
        chunk = {"values": items[start : start + OPEN_CHUNK]}
        result = yield from flows.call("value.open", chunk, purpose=purpose)
        results.append(result)
        for member in result["values"]:
            if "error" in member:
                raise OpenError
            opened.append(_decode(member["cty"], member["value"]))
    return Results(opened, of=results)


def _one_each(contexts: Sequence[Context | None] | None, values: Sequence[Any]) -> Sequence[Context | None]:
    """One context a value; none at all means no value has one."""
    if contexts is None:
        return [None] * len(values)
    if len(contexts) != len(values):
        raise ConfigurationError("there must be one context a value")
    return contexts


def _size(value: Value) -> int:
    """Bytes of plaintext, at most."""
    if isinstance(value, bytes):
        return len(value)
    return 4 * len(value if isinstance(value, str) else json.dumps(value))


def _decode(cty: str, value: Any) -> Value:
    return jose.b64url_decode(value) if cty == "octets" else value
