"""What a relying party accepts: one file, TOML or JSON (schema: policy.schema.json, docs/attestation.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from cloister.attestation.evidence import Environment, Format
from cloister.errors import AppraisalError, ConfigurationError

__all__ = ["UNSEAL_PROVIDERS", "AppraisalPolicy", "Reference", "TeePolicy", "lookup", "same"]

MAX_POLICY_CHARS: Final = 256 * 1024
MAX_REFERENCES: Final = 64
VERSION: Final = 1

_DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_ENVIRONMENTS: Final = ("hardware", "simulated", "test")
_TCB_FORMATS: Final = (Format.TDX, Format.SGX)
UNSEAL_PROVIDERS: Final = ("shamir", "pkcs11", "tpm2", "aws-kms", "gcp-kms", "azure-keyvault")
"""What may seal a root key outside development (docs/unseal.md)."""
_HARDWARE_CONFIG: Final[Mapping[str, tuple[Any, ...]]] = {
    "unseal": UNSEAL_PROVIDERS,
    "debug": (False,),
    "sandbox.missing": (),
}
"""What a host must be configured like, unless the policy says otherwise by name (PROTOCOL 4)."""


def lookup(claims: Mapping[str, Any], name: str) -> Any:
    """The claim with this dotted name, or None."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def same(actual: Any, expected: Any) -> bool:
    """Equality of JSON scalars where absent equals nothing and true is not 1."""
    return actual is not None and type(actual) is type(expected) and actual == expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One accepted image: claims that must all match, with a name and a time in which it is accepted."""

    name: str
    claims: Mapping[str, tuple[Any, ...]]
    not_before: datetime | None = None
    not_after: datetime | None = None

    def valid_at(self, at: datetime) -> bool:
        """Whether it is accepted at this time."""
        return (self.not_before is None or self.not_before <= at) and (
            self.not_after is None or at <= self.not_after
        )

    def first_mismatch(self, claims: Mapping[str, Any]) -> str | None:
        """Name of the first claim that differs, or None."""
        for name, accepted in self.claims.items():
            if not any(same(lookup(claims, name), value) for value in accepted):
                return name
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeePolicy:
    """What is accepted of one kind of evidence."""

    references: tuple[Reference, ...]
    minimum: Mapping[str, int] = field(default_factory=dict)
    require: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tcb_status: tuple[str, ...] | None = None
    advisories: frozenset[str] = frozenset()
    allow_debug: bool = False
    max_age: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisalPolicy:
    """A relying party's appraisal policy.

    Attributes:
        deployment: The deployment that is meant (base64url SHA-256 of its key), if pinned.
        environment: The one kind of anchor that is accepted.
        tees: What is accepted, per format; formats that are not named are refused.
        config: Accepted values of the attested configuration, by dotted name.
        trust_anchors: Roots to use instead of the pinned ones (PEM); only with environment `test`.
        not_before: Start of the policy's own validity.
        not_after: End of it.
    """

    deployment: str | None
    environment: Environment
    tees: Mapping[Format, TeePolicy]
    config: Mapping[str, tuple[Any, ...]]
    trust_anchors: tuple[bytes, ...] | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None

    @classmethod
    def from_toml(cls, text: str) -> AppraisalPolicy:
        """Read a policy from TOML.

        Raises:
            ConfigurationError: It is not TOML, or not a policy.
        """
        import tomllib  # noqa: PLC0415 (a client that was given a mapping does not need it)

        _require(len(text) <= MAX_POLICY_CHARS, "the policy", "is too large")
        try:
            return cls.from_mapping(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigurationError(
                f"the policy is not TOML: {error}", hint="see docs/attestation.md"
            ) from None

    @classmethod
    def from_json(cls, text: str) -> AppraisalPolicy:
        """Read a policy from JSON.

        Raises:
            ConfigurationError: It is not JSON, or not a policy.
        """
        _require(len(text) <= MAX_POLICY_CHARS, "the policy", "is too large")
        try:
            return cls.from_mapping(json.loads(text))
        except (ValueError, RecursionError):
            raise ConfigurationError("the policy is not JSON", hint="see docs/attestation.md") from None

    @classmethod
    def from_mapping(cls, policy: Mapping[str, Any]) -> AppraisalPolicy:
        """Read a policy that is already parsed.

        Raises:
            ConfigurationError: A member is unknown, missing or of the wrong shape.
        """
        table = _Table(policy, "")
        _require(table.take("version", int) == VERSION, "version", "must be 1")
        environment = table.take("environment", str, "hardware")
        _require(environment in _ENVIRONMENTS, "environment", "must be hardware, simulated or test")
        deployment = table.take("deployment", str, None)
        _require(
            deployment is None or _DEPLOYMENT.fullmatch(deployment) is not None,
            "deployment",
            "must be 43 base64url characters, as `cloister host init` printed them",
        )
        anchors = table.take("trust_anchors", list, None)
        _require(
            anchors is None or (environment == "test" and bool(anchors) and _all(anchors, str)),
            "trust_anchors",
            'must be PEM certificates, and needs environment = "test"',
        )
        tees = table.take("tee", Mapping)
        _require(bool(tees), "tee", "names no kind of evidence, so nothing would be accepted")
        defaults = _HARDWARE_CONFIG if environment == "hardware" else {}
        result = cls(
            deployment=deployment,
            environment=cast("Environment", environment),
            tees={_format(name): _tee(_format(name), body) for name, body in tees.items()},
            config={**defaults, **_accepted(table.take("config", Mapping, {}), "config")},
            trust_anchors=None if anchors is None else tuple(pem.encode() for pem in anchors),
            not_before=table.take_time("not_before"),
            not_after=table.take_time("not_after"),
        )
        table.finish()
        return result

    def require_valid(self, at: datetime) -> None:
        """Refuse to appraise with a policy outside its own validity.

        Raises:
            AppraisalError: The policy is expired or not yet valid.
        """
        if (self.not_before is not None and at < self.not_before) or (
            self.not_after is not None and at > self.not_after
        ):
            raise AppraisalError(
                "the policy is expired or not yet valid (step: policy)", hint="review and renew the policy"
            )

    def tee(self, format: Format) -> TeePolicy:  # noqa: A002 (RATS word)
        """What is accepted of this kind of evidence.

        Raises:
            AppraisalError: Nothing is.
        """
        try:
            return self.tees[format]
        except KeyError:
            raise AppraisalError(
                f"format: the policy does not accept {format} evidence (step: format)",
                hint=f"add a [tee.{format}] table with reference values if it should",
            ) from None

    def appraise_config(self, config: Mapping[str, Any]) -> None:
        """Appraise the configuration that was attested with the keys.

        A list in the configuration must contain accepted values only; anything else must be one.

        Raises:
            AppraisalError: A member is absent or not accepted.
        """
        for name, accepted in self.config.items():
            actual = lookup(config, name)
            members = actual if isinstance(actual, (list, tuple)) else (actual,)
            if not all(any(same(member, value) for value in accepted) for member in members):
                raise AppraisalError(
                    f"config.{name}: absent or not accepted (step: config)",
                    hint=f"change the host's configuration, or accept the value by name: [config] {name}",
                )

    def appraise_holder(self, holder: Mapping[str, Any]) -> None:
        """Appraise one entry of a keyset's `holders`: a kind of machine that may be given its keys.

        Raises:
            AppraisalError: This policy would not accept such a machine.
        """
        name, measurements, floor = (holder.get(key) for key in ("format", "measurements", "minimum"))
        if name not in tuple(Format) or not isinstance(measurements, Mapping):
            raise AppraisalError(
                "holders: an entry is malformed (step: holders)", hint="the host is broken or newer"
            )
        tee = self.tee(Format(name))
        if not any(reference.first_mismatch(measurements) is None for reference in tee.references):
            raise AppraisalError(
                "holders: an image that this policy does not accept may be given the keys (step: holders)",
                hint="add its measurements to the policy, or remove it from the host's holders",
            )
        for claim, least in tee.minimum.items():
            actual = lookup(floor, claim) if isinstance(floor, Mapping) else None
            if not isinstance(actual, int) or isinstance(actual, bool) or actual < least:
                raise AppraisalError(
                    f"holders: {claim} is accepted below this policy's minimum (step: holders)",
                    hint="raise the minimum in the host's holders",
                )


def _require(condition: bool, where: str, problem: str) -> None:  # noqa: FBT001 (reads as an assertion)
    if not condition:
        raise ConfigurationError(
            f"{where}: {problem}", hint="see docs/attestation.md; try `cloister policy lint`"
        )


def _all(values: Any, kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


class _Table:
    """A mapping from which known members are taken; what remains is unknown and refused."""

    def __init__(self, table: Any, where: str) -> None:
        _require(isinstance(table, Mapping) and _all(table, str), where or "the policy", "must be a table")
        self._left = dict(table)
        self._where = f"{where}." if where else ""

    def take(self, name: str, kind: type | tuple[type, ...], *default: Any) -> Any:
        if name not in self._left:
            _require(bool(default), f"{self._where}{name}", "is missing")
            return default[0]
        value = self._left.pop(name)
        wrong_bool = isinstance(value, bool) and kind is int
        _require(isinstance(value, kind) and not wrong_bool, f"{self._where}{name}", "is of the wrong type")
        return value

    def take_time(self, name: str) -> datetime | None:
        value = self.take(name, (str, datetime), None)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                _require(False, f"{self._where}{name}", "must be an RFC 3339 time")  # noqa: FBT003 (as above)
        if value is not None and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return cast("datetime | None", value)

    def rest(self) -> dict[str, Any]:
        left, self._left = self._left, {}
        return left

    def finish(self) -> None:
        for name in self._left:
            _require(False, f"{self._where}{name}", "is not known")  # noqa: FBT003 (reads as an assertion)


def _format(name: str) -> Format:
    _require(name in tuple(Format), f"tee.{name}", f"is not one of {', '.join(Format)}")
    return Format(name)


def _tee(format: Format, body: Any) -> TeePolicy:  # noqa: A002 (RATS word)
    where = f"tee.{format}"
    table = _Table(body, where)
    references = table.take("reference", list)
    _require(0 < len(references) <= MAX_REFERENCES, f"{where}.reference", "needs 1 to 64 sets of values")
    max_age = table.take("max_age_seconds", int, None)
    _require(max_age is None or max_age > 0, f"{where}.max_age_seconds", "must be positive")
    minimum = dict(_flatten(table.take("minimum", Mapping, {}), f"{where}.minimum"))
    for name, least in minimum.items():
        _require(type(least) is int, f"{where}.minimum.{name}", "must be an integer")
    advisories = table.take("advisories", list, [])
    _require(_all(advisories, str), f"{where}.advisories", "must be names")
    statuses = table.take("tcb_status", list, ["UpToDate"] if format in _TCB_FORMATS else None)
    _require(statuses is None or _all(statuses, str), f"{where}.tcb_status", "must be names")
    tee = TeePolicy(
        references=tuple(_reference(entry, f"{where}.reference") for entry in references),
        minimum=minimum,
        require=_accepted(table.take("require", Mapping, {}), f"{where}.require"),
        tcb_status=None if statuses is None else tuple(statuses),
        advisories=frozenset(advisories),
        allow_debug=table.take("allow_debug", bool, False),  # noqa: FBT003 (the default of a member)
        max_age=None if max_age is None else timedelta(seconds=max_age),
    )
    table.finish()
    return tee


def _reference(entry: Any, where: str) -> Reference:
    table = _Table(entry, where)
    name = table.take("name", str)
    not_before, not_after = table.take_time("not_before"), table.take_time("not_after")
    claims = _accepted(table.rest(), where)
    _require(bool(claims), where, "has no claims, so it would match everything")
    return Reference(name=name, claims=claims, not_before=not_before, not_after=not_after)


def _accepted(table: Mapping[str, Any], where: str) -> dict[str, tuple[Any, ...]]:
    return {
        name: tuple(value) if isinstance(value, list) else (value,) for name, value in _flatten(table, where)
    }


def _flatten(table: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names for nested tables, since TOML reads a.b = 1 as a table."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, where, f"{prefix}{name}.")
            continue
        scalars = value if isinstance(value, list) else [value]
        _require(
            all(isinstance(scalar, (str, int)) for scalar in scalars),
            f"{where}.{prefix}{name}",
            "must be strings, integers or booleans",
        )
        yield f"{prefix}{name}", value
