"""The commands that bring a remote function into a project, in their order.

Source: https://cloud.google.com/bigquery/docs/remote-functions and
https://cloud.google.com/run/docs/deploy-functions
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloister.errors import ConfigurationError
from cloister_gcp.ddl import parts_of

__all__ = ["Setup", "Step"]

ISSUER: Final = "https://accounts.google.com"
_MULTI_REGIONS: Final = {"us": "us-central1", "eu": "europe-west1"}
"""A region in each, where a connection is in several."""
_APIS: Final = (
    "run.googleapis.com",
    "cloudbuild.googleapis.com",
    "artifactregistry.googleapis.com",
    "bigqueryconnection.googleapis.com",
)
_READ_ACCOUNT: Final = (
    """python3 -c 'import json, sys; print(json.load(sys.stdin)["cloudResource"]["serviceAccountId"])'"""
)
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._~:/-]{1,2048}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some shell commands, and what for."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where a remote function shall run.

    Attributes:
        entry_point: Its name in main.py.
        functions: Names of the confidential functions that it calls.
        connection: `location.connection` or `project.location.connection`.
        service: Name of the Cloud Run service, of its service account and of its principal.
        region: Of the service; by default the connection's.
        settings: `CLOISTER_*` variables of the service.
    """

    entry_point: str
    functions: Sequence[str]
    connection: str
    service: str
    region: str
    settings: Mapping[str, str]

    def __post_init__(self) -> None:
        parts_of(self.connection, "connection", "location.connection")
        if not _NAME.fullmatch(self.service) or not _REGION.fullmatch(self._region):
            raise ConfigurationError(
                "the name of the service or its region cannot be used",
                hint="--service takes 6 to 30 of a-z, 0-9 and '-', as a service account's name",
            )
        if not all(map(_VALUE.fullmatch, self.settings.values())):
            raise ConfigurationError("a setting cannot be written on a command line")

    def steps(self) -> list[Step]:
        """The commands, each to be run once; variables that a step sets are used by later ones."""
        *project, location, name = self.connection.split(".")
        scope = [f"--project={project[0]}"] if project else []
        at = [self.service, *scope, f"--region={self._region}"]
        connection = [f"--location={location}", *(f"--project_id={one}" for one in project)]
        variables = ",".join(f"{key}={value}" for key, value in self.settings.items())
        host = project[0] if project else "$(gcloud config get-value project)"
        return [
            _step(
                "a service account, by which the endpoint signs in",
                ["gcloud services enable", *_APIS, *scope],
                ["gcloud iam service-accounts create", self.service, *scope],
                [f'ACCOUNT="{self.service}@{host}.iam.gserviceaccount.com"'],
            ),
            _step(
                "the endpoint; policy.toml lies beside main.py",
                [
                    "gcloud run deploy",
                    *at,
                    f"--source=. --function={self.entry_point} --base-image=python312",
                    '--no-allow-unauthenticated --service-account="$ACCOUNT"',
                    f"--set-env-vars={variables}",
                ],
                ["ENDPOINT=$(gcloud run services describe", *at, "--format='value(status.url)')"],
            ),
            _step(
                "the connection; its own service account may call the endpoint, and nobody else may",
                ["bq mk --connection", *connection, "--connection_type=CLOUD_RESOURCE", name],
                [
                    "CALLER=$(bq show --connection",
                    *connection,
                    "--format=json",
                    name,
                    "|",
                    _READ_ACCOUNT + ")",
                ],
                [
                    "gcloud run services add-iam-policy-binding",
                    *at,
                    '--member="serviceAccount:$CALLER" --role=roles/run.invoker',
                ],
            ),
            _step(
                "at the enclave host: who this service account is, and what it may call",
                ["cloister issuer add", ISSUER, "--algorithm RS256"],
                ["cloister principal create", self.service, "--kind faas --no-key"],
                [
                    'SUBJECT=$(gcloud iam service-accounts describe "$ACCOUNT"',
                    *scope,
                    "--format='value(uniqueId)')",
                ],
                [
                    "cloister principal bind",
                    self.service,
                    f'--issuer {ISSUER} --claim sub="$SUBJECT" --claim email="$ACCOUNT"',
                ],
                *(["cloister grant add", self.service, f"invoke function/{one}"] for one in self.functions),
            ),
        ]

    @property
    def _region(self) -> str:
        location = self.connection.split(".")[-2].lower()
        return self.region or _MULTI_REGIONS.get(location, location)


def _step(why: str, *commands: Sequence[str]) -> Step:
    return Step(why=why, commands=tuple(" ".join(words) for words in commands))
