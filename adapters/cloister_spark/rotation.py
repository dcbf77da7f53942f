"""A whole table moved to current keys, part by part; a job that broke off goes on where it stopped.

The source is never changed. A part is a few of its files, worked on and written beside the target first, then
renamed into it and ticked off; a part that was not ticked off is done again from the source. What a journal
was begun for (source files with sizes and times, steps) must still be the same when the job goes on.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cloister.errors import ConfigurationError
from cloister.faas import idempotency_key
from cloister_spark.files import Files
from cloister_spark.steps import Retokenize, Rewrap

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Map", "Rotated", "Rotation"]

FORMATS: Final = frozenset({"parquet", "orc"})
JOURNAL: Final = "_cloister/journal.json"  # readers of tables skip what begins with an underscore
STAGING: Final = "_cloister/staging"
FAILED: Final = "_failed"
MOVED: Final = "__cloister_moved"
ERROR: Final = "__cloister_error"

Map = Callable[..., "DataFrame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What a rotation did.

    Attributes:
        parts: Of the table.
        resumed: How many of them were done before this run.
        rows: Rows written in this run.
        failed: Rows in the whole target that kept an old value; they stand with their error codes in
            `<target>/_failed`.
    """

    parts: int
    resumed: int
    rows: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One table, its steps, and where it goes.

    Attributes:
        map: Applies a step to a DataFrame, under a run's name.
        source: Folder of the table.
        target: Folder of the new table.
        steps: What is done to which column.
        format: `parquet` or `orc`.
        partition_by: Columns that the new table is laid out by.
        files_per_part: Files of the source in one part.
        told: Called with parts done and parts there are.
    """

    map: Map
    source: str
    target: str
    steps: tuple[Rewrap | Retokenize, ...]
    format: str = "parquet"
    partition_by: tuple[str, ...] = ()
    files_per_part: int = 8
    told: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigurationError(f"a table is rotated in {' or '.join(sorted(FORMATS))}")
        if not self.steps or len({step.column for step in self.steps}) != len(self.steps):
            raise ConfigurationError("a rotation has steps, one a column")
        if self.files_per_part < 1:
            raise ConfigurationError("files_per_part is at least 1")
        if self.target.rstrip("/") == self.source.rstrip("/"):
            raise ConfigurationError("the target is the source", hint="write beside it, then swap the two")

    def run(self, spark: SparkSession) -> Rotated:
        """Do what is not done yet.

        Raises:
            ConfigurationError: There is no such table, or the target was begun for something else.
        """
        files = Files(spark)
        table = self._load(spark, [self.source])
        names = sorted(table.inputFiles())
        if not names:
            raise ConfigurationError("the source has no files")
        parts = [
            names[start : start + self.files_per_part] for start in range(0, len(names), self.files_per_part)
        ]
        state = self._begin(files, names, len(parts))
        resumed, rows = len(state["done"]), 0
        for number, part in enumerate(parts):
            if str(number) in state["done"]:
                continue
            written, failed = self._part(spark, files, number, part, run=state["run"])
            state["done"][str(number)] = failed
            files.write(f"{self.target}/{JOURNAL}", json.dumps(state).encode())
            rows += written
            if self.told is not None:
                self.told(len(state["done"]), len(parts))
        files.delete(f"{self.target}/{STAGING}")
        return Rotated(parts=len(parts), resumed=resumed, rows=rows, failed=sum(state["done"].values()))

    def _begin(self, files: Files, names: Sequence[str], parts: int) -> dict[str, Any]:
        """The journal: a new one, or that of a run that broke off."""
        given = [
            repr(self.steps),
            self.format,
            self.partition_by,
            parts,
            [files.stamp(name) for name in names],
        ]
        digest = hashlib.sha256(json.dumps(given).encode()).hexdigest()
        path = f"{self.target}/{JOURNAL}"
        if (raw := files.read(path)) is not None:
            state = _journal(raw)
            if state["for"] != digest:
                raise ConfigurationError(
                    "the target was begun from another source or with other steps", hint="choose a new target"
                )
            return state
        if files.exists(self.target):
            raise ConfigurationError("the target exists and is no rotation", hint="choose a new target")
        state = {"version": 1, "for": digest, "run": secrets.token_urlsafe(16), "done": {}}
        files.write(path, json.dumps(state).encode())
        return state

    def _part(
        self, spark: SparkSession, files: Files, number: int, names: Sequence[str], *, run: str
    ) -> tuple[int, int]:
        """Work on one part; gives rows written and rows that kept an old value."""
        from pyspark.sql import functions as f  # noqa: PLC0415 (only where Spark is)

        staging = f"{self.target}/{STAGING}/{number:05d}"
        prefix = f"rotated-{number:05d}-"
        for folder in (self.target, f"{self.target}/{FAILED}"):
            files.delete_beginning(folder, prefix)
        files.delete(staging)
        frame = self._load(spark, names)
        columns = frame.columns
        for place, step in enumerate(self.steps):
            key = idempotency_key("spark-rotation", run, str(number))
            frame = self.map(frame, step, into=f"{MOVED}{place}", error=f"{ERROR}{place}", run=key)
        errors = [f.col(f"{ERROR}{place}") for place in range(len(self.steps))]
        frame = frame.persist()
        try:
            moved = {step.column: f.col(f"{MOVED}{place}") for place, step in enumerate(self.steps)}
            table = frame.select(
                *(
                    f.coalesce(moved[name], f.col(_quoted(name))).alias(name)
                    if name in moved
                    else f.col(_quoted(name))
                    for name in columns
                )
            )
            self._write(table, f"{staging}/rows")
            rows = frame.count()
            bad = frame.where(f.coalesce(*errors).isNotNull())
            failed = bad.count()
            if failed:
                named = [
                    error.alias(f"{step.column}_error")
                    for step, error in zip(self.steps, errors, strict=True)
                ]
                self._write(
                    bad.select(*(f.col(_quoted(name)) for name in columns), *named), f"{staging}/failed"
                )
        finally:
            frame.unpersist()
        move = partial(files.move_into, prefix=prefix)
        if failed:
            move(f"{staging}/failed", f"{self.target}/{FAILED}")
        move(f"{staging}/rows", self.target)
        return rows, failed

    def _load(self, spark: SparkSession, paths: Sequence[str]) -> DataFrame:
        return spark.read.format(self.format).option("basePath", self.source).load(list(paths))

    def _write(self, frame: DataFrame, path: str) -> None:
        writer = frame.write.format(self.format).mode("overwrite")
        (writer.partitionBy(*self.partition_by) if self.partition_by else writer).save(path)


def _journal(raw: bytes) -> dict[str, Any]:
    try:
        state = json.loads(raw)
        if (
            state["version"] != 1
            or not isinstance(state["for"], str)
            or not isinstance(state["run"], str)
            or not all(type(failed) is int for failed in state["done"].values())
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            "the journal of the target cannot be read", hint="choose a new target"
        ) from None
    return dict(state)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
