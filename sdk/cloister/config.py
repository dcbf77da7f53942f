"""Settings: explicit argument, then environment, then `cloister.toml`; one table of them all."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloister.errors import ConfigurationError

__all__ = ["SETTINGS", "Setting", "Settings", "gather"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its name in code and file, in the environment, and what it is for."""

    name: str
    variable: str
    help: str
    default: str | None = None


SETTINGS: Final = (
    Setting(
        name="url", variable="CLOISTER_URL", help="Where the enclave host answers, https outside loopback."
    ),
    Setting(name="tenant", variable="CLOISTER_TENANT", help="The tenant whose keys and functions are used."),
    Setting(
        name="policy",
        variable="CLOISTER_POLICY",
        help="Path of the appraisal policy: which enclave host is accepted.",
    ),
    Setting(
        name="identity",
        variable="CLOISTER_IDENTITY",
        help="How the caller proves who it is: `key`, `token`, `mtls`, or as the workload that it is: "
        "`aws`, `gcp`, `azure`.",
        default="key",
    ),
    Setting(
        name="api_key_file",
        variable="CLOISTER_API_KEY_FILE",
        help="File with the API key, for identity `key`.",
    ),
    Setting(
        name="api_key_secret",
        variable="CLOISTER_API_KEY_SECRET",
        help="Where a cloud keeps the API key: ARN of a Secrets Manager secret or an SSM parameter, "
        "`projects/.../secrets/...` of Google's Secret Manager, `https://...` of Azure's Key Vault.",
    ),
    Setting(
        name="token_audience",
        variable="CLOISTER_TOKEN_AUDIENCE",
        help="For identity `azure`: Application ID URI that tokens are asked for, `{deployment}` in the "
        "place of the deployment's name.",
    ),
    Setting(
        name="token_file",
        variable="CLOISTER_TOKEN_FILE",
        help="File with an OIDC token that the platform keeps fresh, for identity `token`.",
    ),
    Setting(
        name="certificate_file",
        variable="CLOISTER_CERTIFICATE_FILE",
        help="Client certificate with its chain, PEM, for identity `mtls`.",
    ),
    Setting(
        name="certificate_key_file",
        variable="CLOISTER_CERTIFICATE_KEY_FILE",
        help="Private key of the client certificate, PEM, for identity `mtls`.",
    ),
    Setting(
        name="timeout_seconds",
        variable="CLOISTER_TIMEOUT_SECONDS",
        help="How long one HTTP exchange may take, in seconds.",
        default="60",
    ),
    Setting(
        name="head_file",
        variable="CLOISTER_HEAD_FILE",
        help="File in which the last tree head of the audit log is kept between runs.",
    ),
    Setting(
        name="witness",
        variable="CLOISTER_WITNESS",
        help="Public key of a witness that must have cosigned every tree head: name+hash+key.",
    ),
    Setting(
        name="receiver_url",
        variable="CLOISTER_RECEIVER_URL",
        help="Public origin under which the host calls this application, for receivers of deliveries.",
    ),
    Setting(
        name="profile",
        variable="CLOISTER_PROFILE",
        help="Which table of `cloister.toml` is read.",
        default="default",
    ),
)

FILE: Final = "cloister.toml"
MAX_FILE_BYTES: Final = 64 * 1024
PATHS: Final = frozenset(
    {"policy", "api_key_file", "token_file", "certificate_file", "certificate_key_file", "head_file"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings a client was made with; no credential is among them."""

    url: str
    tenant: str
    policy: Path
    identity: str
    api_key_file: Path | None
    api_key_secret: str | None
    token_audience: str | None = None
    token_file: Path | None = None
    certificate_file: Path | None = None
    certificate_key_file: Path | None = None
    timeout_seconds: float
    head_file: Path | None
    witness: str | None

    @classmethod
    def load(
        cls,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        **explicit: Any,
    ) -> Settings:
        """Gather what a client needs; see `gather`.

        Raises:
            ConfigurationError: A setting is missing, unknown or malformed.
        """
        values = gather(("url", "tenant", "policy"), directory=directory, environment=environment, **explicit)
        return cls(
            url=str(values["url"]),
            tenant=str(values["tenant"]),
            policy=Path(values["policy"]),
            identity=str(values["identity"]),
            api_key_file=_path(values["api_key_file"]),
            api_key_secret=values["api_key_secret"],
            token_audience=values["token_audience"],
            token_file=_path(values["token_file"]),
            certificate_file=_path(values["certificate_file"]),
            certificate_key_file=_path(values["certificate_key_file"]),
            timeout_seconds=_seconds(values["timeout_seconds"]),
            head_file=_path(values["head_file"]),
            witness=values["witness"],
        )


def gather(
    required: Collection[str],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **explicit: Any,
) -> dict[str, Any]:
    """Gather the settings: explicit argument > environment > `cloister.toml` > default.

    The file is looked for in `directory` (the working directory by default) and its parents; paths in it
    are relative to it.

    Raises:
        ConfigurationError: A required setting is missing, or one is unknown or malformed.
    """
    env = os.environ if environment is None else environment
    unknown = explicit.keys() - {setting.name for setting in SETTINGS}
    if unknown:
        raise ConfigurationError(f"unknown setting: {', '.join(sorted(unknown))}")
    profile = explicit.get("profile") or env.get("CLOISTER_PROFILE")
    from_file = _read_file(directory or Path.cwd(), profile)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        for source in (
            explicit.get(setting.name),
            env.get(setting.variable),
            from_file.get(setting.name),
        ):
            if source is not None and source != "":
                values[setting.name] = source
                break
        else:
            values[setting.name] = setting.default
    missing = [s.variable for s in SETTINGS if s.name in required and not values[s.name]]
    if missing:
        raise ConfigurationError(
            f"missing setting: {', '.join(missing)}",
            hint=f"set it in the environment or in {FILE}; `cloister host dev` writes one",
        )
    return values


def _path(value: Any) -> Path | None:
    return Path(value) if value else None


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= 1200:  # noqa: PLR2004 (20 minutes: the longest call of any caller we serve)
        raise ConfigurationError("CLOISTER_TIMEOUT_SECONDS must be a number of seconds up to 1200")
    return seconds


def _read_file(directory: Path, profile: str | None) -> Mapping[str, Any]:
    directory = directory.resolve()
    path = next((p / FILE for p in (directory, *directory.parents) if (p / FILE).is_file()), None)
    if path is None:
        if profile:
            raise ConfigurationError(f"profile {profile!r} was asked for, but there is no {FILE}")
        return {}
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigurationError(f"{FILE} is too large")
        document = tomllib.loads(raw.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise ConfigurationError(f"{path} cannot be read as TOML") from None
    table = document.get(profile or "default")
    if table is None and profile is None:
        return {}
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path} has no profile {profile!r}")
    unknown = table.keys() - {setting.name for setting in SETTINGS}
    if unknown:
        raise ConfigurationError(f"unknown setting in {path}: {', '.join(sorted(unknown))}")
    return {name: str(path.parent / value) if name in PATHS else value for name, value in table.items()}
