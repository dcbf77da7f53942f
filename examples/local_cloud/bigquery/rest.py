"""The BigQuery v2 REST API, as much of it as the Python client uses.

Source: https://cloud.google.com/bigquery/docs/reference/rest
"""

from __future__ import annotations

import re
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from local_cloud.bigquery import loading
from local_cloud.bigquery.engine import Engine, Result
from local_cloud.bigquery.errors import ApiError, not_found, not_supported
from local_cloud.bigquery.remote import RemoteFunction
from local_cloud.bigquery.types import Field
from local_cloud.http_server import Request, Response, json_response

__all__ = ["RestApi"]

ROOT = re.compile(r"(?:/resumable)?(?P<upload>/upload)?/bigquery/v2/projects/(?P<project>[^/]+)/(?P<rest>.*)")
PAGE_ROWS = 100_000

Json = dict[str, Any]
Route = Callable[..., Json]


class RestApi:
    """Answers requests; jobs are done by the time they are answered."""

    def __init__(self, engine: Engine, *, project: str, user: str) -> None:
        self._engine = engine
        self._project = project
        self._user = user
        self._jobs: dict[str, tuple[Json, Result | ApiError]] = {}
        self._uploads: dict[str, tuple[Json, bytearray]] = {}
        name = r"([^/]+)"
        self._routes: list[tuple[str, re.Pattern[str], Route]] = [
            (method, re.compile(pattern), route)
            for method, pattern, route in (
                ("POST", "queries", self._query),
                ("GET", f"queries/{name}", self._query_results),
                ("POST", "jobs", self._insert_job),
                ("GET", f"jobs/{name}", self._get_job),
                ("GET", "datasets", self._list_datasets),
                ("POST", "datasets", self._insert_dataset),
                ("GET", f"datasets/{name}", self._get_dataset),
                ("DELETE", f"datasets/{name}", self._delete_dataset),
                ("GET", f"datasets/{name}/tables", self._list_tables),
                ("POST", f"datasets/{name}/tables", self._insert_table),
                ("GET", f"datasets/{name}/tables/{name}", self._get_table),
                ("DELETE", f"datasets/{name}/tables/{name}", self._delete_table),
                ("GET", f"datasets/{name}/tables/{name}/data", self._list_rows),
                ("POST", f"datasets/{name}/tables/{name}/insertAll", self._insert_all),
                ("GET", f"datasets/{name}/routines", self._list_routines),
                ("POST", f"datasets/{name}/routines", self._insert_routine),
                ("GET", f"datasets/{name}/routines/{name}", self._get_routine),
                ("PUT", f"datasets/{name}/routines/{name}", self._update_routine),
                ("DELETE", f"datasets/{name}/routines/{name}", self._delete_routine),
            )
        ]

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        try:
            found = ROOT.fullmatch(request.path)
            if found is None or found["project"] != self._project:
                raise not_found(request.path)
            if found["upload"]:
                return self._upload(request)
            for method, pattern, route in self._routes:
                if method == request.method and (arguments := pattern.fullmatch(found["rest"])):
                    return json_response(route(request, *arguments.groups()))
            raise not_supported(f"{request.method} {found['rest']}")
        except ApiError as error:
            return json_response(error.to_rest(), status=error.status)
        except Exception:  # noqa: BLE001 - the client would retry a plain 500 for ten minutes
            traceback.print_exc()
            failure = not_supported("this request: it raised the exception printed on standard error")
            return json_response(failure.to_rest(), status=failure.status)

    # Queries and jobs

    def _query(self, request: Request) -> Json:
        body = request.json()
        job_id = _new_job_id()
        resource = self._run_query(job_id, body)
        return {
            **self._page(job_id, {"maxResults": str(body.get("maxResults") or PAGE_ROWS)}),
            "kind": "bigquery#queryResponse",
            "queryId": job_id,
            "totalBytesProcessed": "0",
            "cacheHit": False,
            "statementType": resource["statistics"]["query"].get("statementType"),
        }

    def _query_results(self, request: Request, job_id: str) -> Json:
        return self._page(job_id, request.query)

    def _insert_job(self, request: Request) -> Json:
        body = request.json()
        configuration = body["configuration"]
        if "query" not in configuration:
            raise not_supported(f"jobs of the kind {', '.join(configuration)}")
        if configuration.get("dryRun") or configuration["query"].get("destinationTable"):
            raise not_supported("dry runs and destination tables")
        return self._run_query(self._job_id(body), configuration["query"])

    def _run_query(self, job_id: str, options: Mapping[str, Any]) -> Json:
        if options.get("dryRun") or options.get("useLegacySql"):
            raise not_supported("dry runs and legacy SQL")
        outcome: Result | ApiError
        try:
            outcome = self._engine.query(
                options["query"],
                job_id=job_id,
                parameters=options.get("queryParameters") or (),
                default_dataset=(options.get("defaultDataset") or {}).get("datasetId"),
            )
        except ApiError as error:
            outcome = error
        statistics: Json = {"totalBytesProcessed": "0", "cacheHit": False}
        if isinstance(outcome, Result):
            statistics["statementType"] = outcome.statement_type
            if outcome.affected_rows is not None:
                statistics["numDmlAffectedRows"] = str(outcome.affected_rows)
        configuration = {"jobType": "QUERY", "query": {"query": options["query"]}}
        return self._record(job_id, configuration, {"query": statistics}, outcome)

    def _get_job(self, _request: Request, job_id: str) -> Json:
        return self._job(job_id)[0]

    def _job_id(self, body: Mapping[str, Any]) -> str:
        job_id = str((body.get("jobReference") or {}).get("jobId") or _new_job_id())
        if job_id in self._jobs:
            raise ApiError(409, "duplicate", f"Already Exists: Job {job_id}")
        return job_id

    def _job(self, job_id: str) -> tuple[Json, Result | ApiError]:
        if job_id not in self._jobs:
            raise not_found(f"Job {job_id}")
        return self._jobs[job_id]

    def _record(self, job_id: str, configuration: Json, statistics: Json, outcome: Result | ApiError) -> Json:
        status: Json = {"state": "DONE"}
        if isinstance(outcome, ApiError):
            status.update(errorResult=outcome.to_proto(), errors=[outcome.to_proto()])
        now = str(int(time.time() * 1000))
        resource = {
            "kind": "bigquery#job",
            "id": f"{self._project}:US.{job_id}",
            "jobReference": {"projectId": self._project, "jobId": job_id, "location": "US"},
            "configuration": configuration,
            "user_email": self._user,
            "status": status,
            "statistics": {"creationTime": now, "startTime": now, "endTime": now, **statistics},
        }
        self._jobs[job_id] = (resource, outcome)
        return resource

    def _page(self, job_id: str, query: Mapping[str, str]) -> Json:
        resource, outcome = self._job(job_id)
        if isinstance(outcome, ApiError):
            raise outcome
        page = {
            "kind": "bigquery#getQueryResultsResponse",
            "jobComplete": True,
            "jobReference": resource["jobReference"],
            "schema": {"fields": [field.to_rest() for field in outcome.schema]},
            **_rows(outcome, query),
        }
        if outcome.affected_rows is not None:
            page["numDmlAffectedRows"] = str(outcome.affected_rows)
        return page

    # Uploads: multipart in one request, or resumable in chunks

    def _upload(self, request: Request) -> Response:
        if request.query.get("uploadType") == "multipart":
            body, data = loading.split_multipart(request.headers["content-type"], request.body)
            return json_response(self._load(body, data))
        if request.method == "POST":
            upload = uuid.uuid4().hex
            self._uploads[upload] = (request.json(), bytearray())
            location = f"http://{request.headers['host']}{request.path}?upload_id={upload}"
            return Response(headers={"Location": location})
        body, received = self._uploads[request.query["upload_id"]]
        received += request.body
        total = request.headers["content-range"].rpartition("/")[2]
        if total != str(len(received)):
            return Response(status=308, headers={"Range": f"bytes=0-{len(received) - 1}"})
        del self._uploads[request.query["upload_id"]]
        return json_response(self._load(body, bytes(received)))

    def _load(self, body: Json, data: bytes) -> Json:
        job_id = self._job_id(body)
        outcome: Result | ApiError = Result(statement_type="LOAD")
        loaded = 0
        try:
            loaded = loading.load(self._engine, body["configuration"]["load"], data)
        except ApiError as error:
            outcome = error
        sizes = {"inputFiles": "1", "inputFileBytes": str(len(data)), "outputBytes": str(len(data))}
        statistics = {"load": {**sizes, "outputRows": str(loaded)}}
        return self._record(job_id, body["configuration"], statistics, outcome)

    # Datasets, tables, routines

    def _list_datasets(self, _request: Request) -> Json:
        return {"datasets": [self._dataset(name) for name in self._engine.datasets()]}

    def _insert_dataset(self, request: Request) -> Json:
        dataset = request.json()["datasetReference"]["datasetId"]
        self._engine.create_dataset(dataset)
        return self._dataset(dataset)

    def _get_dataset(self, _request: Request, dataset: str) -> Json:
        self._engine.tables(dataset)
        return self._dataset(dataset)

    def _delete_dataset(self, request: Request, dataset: str) -> Json:
        self._engine.drop_dataset(dataset, contents=request.query.get("deleteContents") == "true")
        return {}

    def _dataset(self, dataset: str) -> Json:
        return {
            "kind": "bigquery#dataset",
            "id": f"{self._project}:{dataset}",
            "datasetReference": {"projectId": self._project, "datasetId": dataset},
            "location": "US",
        }

    def _list_tables(self, _request: Request, dataset: str) -> Json:
        tables = [self._table(dataset, table) for table in self._engine.tables(dataset)]
        return {"tables": tables, "totalItems": len(tables)}

    def _insert_table(self, request: Request, dataset: str) -> Json:
        body = request.json()
        table = body["tableReference"]["tableId"]
        fields = body.get("schema", {}).get("fields", ())
        if not fields:
            raise not_supported("tables without a schema")
        self._engine.create_table(dataset, table, [Field.from_rest(field) for field in fields])
        return self._get_table(request, dataset, table)

    def _get_table(self, _request: Request, dataset: str, table: str) -> Json:
        fields = [field.to_rest() for field in self._engine.schema(dataset, table)]
        return {**self._table(dataset, table), "schema": {"fields": fields}}

    def _delete_table(self, _request: Request, dataset: str, table: str) -> Json:
        self._engine.drop_table(dataset, table)
        return {}

    def _table(self, dataset: str, table: str) -> Json:
        return {
            "kind": "bigquery#table",
            "id": f"{self._project}:{dataset}.{table}",
            "tableReference": {"projectId": self._project, "datasetId": dataset, "tableId": table},
            "type": "TABLE",
        }

    def _list_rows(self, request: Request, dataset: str, table: str) -> Json:
        return _rows(self._engine.read_table(dataset, table), request.query)

    def _insert_all(self, request: Request, dataset: str, table: str) -> Json:
        return loading.insert_all(self._engine, dataset, table, request.json())

    def _list_routines(self, _request: Request, dataset: str) -> Json:
        return {"routines": [function.to_rest(self._project) for function in self._engine.functions(dataset)]}

    def _insert_routine(self, request: Request, _dataset: str) -> Json:
        return self._put_routine(request, replace=False)

    def _get_routine(self, _request: Request, dataset: str, name: str) -> Json:
        return self._engine.function(dataset, name).to_rest(self._project)

    def _update_routine(self, request: Request, dataset: str, name: str) -> Json:
        self._engine.function(dataset, name)
        return self._put_routine(request, replace=True)

    def _put_routine(self, request: Request, *, replace: bool) -> Json:
        resource = request.json()
        if "remoteFunctionOptions" not in resource:
            raise not_supported("routines other than remote functions")
        function = RemoteFunction.from_rest(resource)
        self._engine.put_function(function, replace=replace)
        return function.to_rest(self._project)

    def _delete_routine(self, _request: Request, dataset: str, name: str) -> Json:
        self._engine.drop_function(dataset, name)
        return {}


def _rows(result: Result, query: Mapping[str, str]) -> Json:
    start = int(query.get("pageToken") or query.get("startIndex") or 0)
    end = start + int(query.get("maxResults") or PAGE_ROWS)
    page: Json = {
        "totalRows": str(len(result.rows)),
        "rows": [
            {"f": [field.cell(value) for field, value in zip(result.schema, row, strict=True)]}
            for row in result.rows[start:end]
        ],
    }
    if end < len(result.rows):
        page["pageToken"] = str(end)
    return page


def _new_job_id() -> str:
    return f"bquxjob_{uuid.uuid4().hex}"
