"""BigQuery on this machine: its REST API over DuckDB, calling real remote functions over HTTP.

    with LocalBigQuery() as bigquery, bigquery.client() as client:
        client.create_dataset("clinic")
        client.query_and_wait("SELECT clinic.ssn_breached(ssn, member_id) FROM clinic.members")

What the double cannot do it refuses by name (501); it ignores nothing that changes a result.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from local_cloud.bigquery.engine import Engine
from local_cloud.bigquery.remote import Authorize, RecordedRequest, RemoteCaller
from local_cloud.bigquery.rest import RestApi
from local_cloud.http_server import HttpServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LocalBigQuery", "RecordedRequest"]


class LocalBigQuery:
    """One project.

    Args:
        project: Its id.
        session_user: Who runs the queries; sent to remote functions.
        repeat_requests: Send every successful request to a remote function twice, with the same id.
        authorize: Headers for calls of remote functions, from endpoint and connection.
        ca_file: The certificate authority of remote functions served over https.
        retry_delay_seconds: Before the first retry of a call.
    """

    def __init__(
        self,
        *,
        project: str = "local-project",
        session_user: str = "analyst@example.com",
        repeat_requests: bool = False,
        authorize: Authorize | None = None,
        ca_file: Path | None = None,
        retry_delay_seconds: float = 0.005,
    ) -> None:
        self.project = project
        self._caller = RemoteCaller(
            project=project,
            session_user=session_user,
            authorize=authorize or (lambda _endpoint, _connection: {}),
            ca_file=str(ca_file) if ca_file else None,
            repeat_requests=repeat_requests,
            retry_delay_seconds=retry_delay_seconds,
        )
        self._engine = Engine(self._caller)
        self._server = HttpServer(RestApi(self._engine, project=project, user=session_user))
        self.url = self._server.url

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request sent to a remote function, in order."""
        return self._caller.sent

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point a client in another process here."""
        return {"BIGQUERY_EMULATOR_HOST": self.url, "GOOGLE_CLOUD_PROJECT": self.project}

    @contextlib.contextmanager
    def client(self) -> Iterator[bigquery.Client]:
        """The real client, without credentials."""
        client = bigquery.Client(
            project=self.project,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options=ClientOptions(api_endpoint=self.url),
        )
        try:
            yield client
        finally:
            client.close()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Stop serving and forget the data."""
        self._server.close()
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
