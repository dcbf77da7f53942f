"""Ask declared origins on behalf of a function: cached, limited, retried where that is safe."""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore

from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError, UnavailableError
from cloister.function.egress import OriginRule
from cloister_host.egress.addresses import Resolve, system_resolver
from cloister_host.egress.breaker import Breaker
from cloister_host.egress.cache import Cache, Cached, CacheKey, fresh_seconds
from cloister_host.egress.network import SPKI, CheckedBackend, deadline
from cloister_host.egress.outbound import OutboundBackend
from cloister_host.egress.request import Outgoing, outgoing, secret_header
from cloister_host.egress.settings import EgressSettings
from cloister_host.functions.frames import Answer, Ask
from cloister_host.secrets import SecretValue

__all__ = ["Credentials", "Egress", "EgressDoor", "EgressRecord"]

_ATTEMPTS: Final = 3
_BACKOFF_SECONDS: Final = 0.1
_KEEPALIVE_SECONDS: Final = 30.0
_MAX_POOLS: Final = 256
_MAX_CONNECTIONS: Final = 8
_OK: Final = 200
_NOT_MODIFIED: Final = 304
# The origin says "not now": no answer, whoever asked (RFC 9110 section 15.6, RFC 6585 section 4).
_NOT_NOW: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRecord:
    """One call, as the receipt discloses it: whom, with which key they answered, and how (0: not at all)."""

    origin: str
    method: str
    status: int
    spki_sha256: str
    cached: bool


@dataclass(frozen=True, slots=True)
class _Exchange:
    answer: Answer
    spki: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the host shows to an origin: secrets by header, and a client certificate."""

    headers: Mapping[str, SecretValue] = field(default_factory=dict)
    certificate: SecretValue | None = None


_NOTHING: Final = Credentials()


class Egress:
    """The way out of the host.

    Args:
        settings: Trust and development switches.
        resolve: Name to addresses.
        sleep: Waits between two attempts.
    """

    def __init__(
        self,
        settings: EgressSettings,
        *,
        resolve: Resolve = system_resolver,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._tls = settings.tls()
        self._resolve = resolve
        self._sleep = sleep
        self._cache = Cache()
        self._breaker = Breaker()
        self._pools: OrderedDict[tuple[str, str, str, int], httpcore.ConnectionPool] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def debug_switches(self) -> tuple[str, ...]:
        """For the attested configuration."""
        return self._settings.debug_switches

    def door(
        self, *, tenant: str, digest: str, rules: Mapping[str, OriginRule], secrets: Mapping[str, SecretValue]
    ) -> EgressDoor:
        """The way out for one invocation; `secrets` by name."""
        return EgressDoor(self, tenant, digest, rules, secrets)

    def post(self, url: str, path: str, body: bytes, *, headers: Mapping[str, str], tenant: str) -> Answer:
        """Send one delivery to `url` + `path`, once.

        Raises:
            CloisterError: There was no usable answer.
        """
        request = Outgoing(method="POST", target=path, headers=tuple(headers.items()), body=body)
        until = time.monotonic() + 15.0
        rule = OriginRule(url=url, timeout_seconds=15, max_response_bytes=1 << 16)
        return self.exchange(tenant, "delivery", rule, request, _NOTHING, until=until).answer

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    def cached(
        self,
        key: CacheKey,
        rule: OriginRule,
        request: Outgoing,
        secrets: Credentials,
        *,
        until: float,
    ) -> tuple[_Exchange, bool]:
        """Answer from the cache, or ask and store; tells which."""
        with self._cache.flight(key, timeout_seconds=until - time.monotonic()):
            stored = self._cache.get(key)
            if stored is not None and time.monotonic() < stored.expires:
                return _Exchange(stored.answer, ""), True
            if stored is not None and stored.etag is not None:
                conditional = (*request.headers, ("if-none-match", stored.etag))
                request = Outgoing(
                    method=request.method, target=request.target, headers=conditional, body=request.body
                )
            found = self.exchange(key.tenant, key.digest, rule, request, secrets, until=until)
            fresh = fresh_seconds(found.answer, rule.cache_seconds)
            expires = time.monotonic() + (fresh or 0)
            if stored is not None and found.answer.status == _NOT_MODIFIED:
                self._cache.refresh(key, stored, expires=expires)
                return _Exchange(stored.answer, found.spki), True
            if found.answer.status == _OK and fresh is not None:
                self._cache.put(key, Cached(answer=found.answer, expires=expires))
            return found, False

    def exchange(
        self,
        tenant: str,
        digest: str,
        rule: OriginRule,
        request: Outgoing,
        secrets: Credentials,
        *,
        until: float,
    ) -> _Exchange:
        """Ask the origin itself; GET is asked up to three times.

        Raises:
            UnavailableError: No answer in time, or "not now".
            LimitError: The answer is too large.
            DeniedError: The address, the key or the answer's content is not acceptable.
        """
        attempts = _ATTEMPTS if request.method == "GET" else 1
        for attempt in range(1, attempts + 1):
            self._breaker.enter(tenant, rule.url, now=time.monotonic())
            try:
                found = self._send(tenant, digest, rule, request, secrets, until=until)
            except UnavailableError:
                self._breaker.failed(tenant, rule.url, now=time.monotonic())
                pause = _BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                if attempt == attempts or time.monotonic() + pause >= until:
                    raise
                self._sleep(pause)
            else:
                self._breaker.succeeded(tenant, rule.url)
                return found
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self,
        tenant: str,
        digest: str,
        rule: OriginRule,
        request: Outgoing,
        secrets: Credentials,
        *,
        until: float,
    ) -> _Exchange:
        parts = urlsplit(rule.url)
        headers = [
            ("host", parts.netloc),
            ("user-agent", "cloister"),
            # Whoever unpacks hostile bytes has to bound what comes out: ask for them as they are.
            ("accept-encoding", "identity"),
            *request.headers,
            *((name, secret_header(name, secret)) for name, secret in secrets.headers.items()),
        ]
        url = httpcore.URL(
            scheme=b"https",
            host=(parts.hostname or "").encode(),
            port=parts.port,
            target=request.target.encode(),
        )
        reset = deadline.set(until)
        try:
            pool = self._pool(tenant, digest, rule, secrets.certificate)
            timeouts = {"pool": max(until - time.monotonic(), 0.0)}
            with pool.stream(
                request.method,
                url,
                headers=headers,
                content=request.body or None,
                extensions={"timeout": timeouts},
            ) as response:
                body = bytearray()
                for chunk in response.iter_stream():
                    body += chunk
                    if len(body) > rule.max_response_bytes:
                        raise LimitError("the origin's answer is too large", hint="raise max_response_bytes")
                raw_headers, status = response.headers, response.status
                spki = str(response.extensions["network_stream"].get_extra_info(SPKI))
        except CloisterError:
            raise
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError):
            raise UnavailableError("the origin did not answer", hint="retry later") from None
        finally:
            deadline.reset(reset)
        if status in _NOT_NOW:
            raise UnavailableError("the origin cannot answer now", hint="retry later")
        _refuse_secrets(raw_headers, body, secrets.headers)
        return _Exchange(Answer(status, _readable(raw_headers), bytes(body)), spki)

    def _network(self, rule: OriginRule) -> httpcore.NetworkBackend:
        allow_private = self._settings.allow_private_addresses
        if self._settings.outbound is not None:
            return OutboundBackend(
                self._settings.outbound, allow_private=allow_private, pins=rule.spki_sha256
            )
        return CheckedBackend(resolve=self._resolve, allow_private=allow_private, pins=rule.spki_sha256)

    def _pool(
        self, tenant: str, digest: str, rule: OriginRule, certificate: SecretValue | None
    ) -> httpcore.ConnectionPool:
        """Connections are shared by the calls of one bundle to one origin, and by nobody else."""
        key = (tenant, digest, rule.url, certificate.version if certificate else 0)
        with self._lock:
            pool = self._pools.pop(key, None)
            if pool is None:
                pool = httpcore.ConnectionPool(
                    ssl_context=self._settings.tls(certificate.value) if certificate else self._tls,
                    max_connections=_MAX_CONNECTIONS,
                    keepalive_expiry=_KEEPALIVE_SECONDS,
                    network_backend=self._network(rule),
                )
            self._pools[key] = pool
            evicted = self._pools.popitem(last=False)[1] if len(self._pools) > _MAX_POOLS else None
        if evicted is not None:
            evicted.close()
        return pool


class EgressDoor:
    """The origins of one invocation, and the record of what was asked."""

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        digest: str,
        rules: Mapping[str, OriginRule],
        secrets: Mapping[str, SecretValue],
    ) -> None:
        self._egress = egress
        self._tenant = tenant
        self._digest = digest
        self._rules = rules
        self._secrets = secrets
        self.records: list[EgressRecord] = []

    def ask(self, request: Ask, *, deadline: float) -> Answer:
        """Ask a declared origin.

        Raises:
            ConfigurationError: The origin was not declared, or the request cannot be sent.
            UnavailableError: No answer in time.
            LimitError: The request or the answer is too large.
            DeniedError: The origin's address, key or answer is not acceptable.
        """
        rule = self._rules.get(request.origin)
        if rule is None:
            raise ConfigurationError("the function did not declare this origin", hint="add it to egress=")
        secrets = Credentials(
            headers={header: self._secrets[name] for header, name in rule.secrets.items()},
            certificate=self._secrets[rule.client_certificate] if rule.client_certificate else None,
        )
        checked = outgoing(request, secrets.headers)
        until = min(deadline, time.monotonic() + rule.timeout_seconds)
        try:
            found, cached = self._found(rule, checked, secrets, until)
        except CloisterError:
            # The origin may have had the request all the same.
            self.records.append(
                EgressRecord(origin=rule.url, method=checked.method, status=0, spki_sha256="", cached=False)
            )
            raise
        self.records.append(
            EgressRecord(
                origin=rule.url,
                method=checked.method,
                status=found.answer.status,
                spki_sha256=found.spki,
                cached=cached,
            )
        )
        return found.answer

    def _found(
        self, rule: OriginRule, checked: Outgoing, secrets: Credentials, until: float
    ) -> tuple[_Exchange, bool]:
        if rule.cache_seconds and checked.method == "GET":
            key = CacheKey(
                tenant=self._tenant,
                digest=self._digest,
                url=rule.url,
                target=checked.target,
                headers=checked.headers,
                secret_versions=tuple(sorted((n, self._secrets[n].version) for n in rule.secret_names)),
            )
            return self._egress.cached(key, rule, checked, secrets, until=until)
        return self._egress.exchange(self._tenant, self._digest, rule, checked, secrets, until=until), False


def _readable(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _refuse_secrets(headers: list[tuple[bytes, bytes]], body: bytearray, secrets: Mapping[str, Any]) -> None:
    for secret in secrets.values():
        value = secret.value.reveal()
        if value in body or any(value in part for header in headers for part in header):
            raise DeniedError(
                "the origin's answer repeats a secret and was withheld",
                hint="ask its operator not to echo headers",
            )
