"""Tokenizing SSNs with PySpark in local mode against a host, beside a pandas loop over libffx.

    python benchmarks/run.py spark          # CLOISTER_BENCH_ROWS=500000 for fewer than five million

The host, Spark's driver and its two executor processes share this machine's cores. The loop encrypts in its
own process: no host, no grant, no audit entry.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import ffx
import pandas as pd
from pyspark.sql import SparkSession

from cloister_host.embedded import embedded_host
from cloister_spark import Cloister
from figures import Row

ROWS: Final = int(os.environ.get("CLOISTER_BENCH_ROWS", "5000000"))
LOOP_ROWS: Final = min(ROWS, 100_000)  # the loop's rate does not depend on the length
SSN: Final = (
    "concat(lpad(cast(100 + id % 799 as string), 3, '0'), '-',"
    " lpad(cast(1 + id % 98 as string), 2, '0'), '-', lpad(cast(1 + id % 9998 as string), 4, '0'))"
)


def rows() -> list[Row]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as name, embedded_host(Path(name) / "host") as host:
        folder = Path(name)
        tenant = host.tenant()
        tenant.admin.call("policy.create", {"policy": "ssn", "plan": "ff1", "type": "ssn"})
        tenant.principal("spark", [("tokenize", "policy/ssn")])
        settings = {
            "url": host.url,
            "tenant": tenant.name,
            "policy": host.policy,
            "api_key_file": tenant.key_file("spark"),
        }
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.local.dir", name)
            .getOrCreate()
        )
        try:
            table = str(folder / "ssns")
            spark.range(ROWS).selectExpr(f"{SSN} as ssn").write.parquet(table)
            cloister = Cloister(**settings)
            tokens = cloister.tokenize(spark.read.parquet(table), "ssn", policy="ssn")
            tokens.limit(1000).collect()  # processes and attestation
            started = time.perf_counter()
            tokens.write.parquet(str(folder / "tokens"))
            ours = ROWS / (time.perf_counter() - started)
            if cloister.progress.failed:
                raise RuntimeError("some rows failed")
            frame = pd.DataFrame({"ssn": spark.read.parquet(table).limit(LOOP_ROWS).toPandas()["ssn"]})
        finally:
            spark.stop()
            tenant.admin.close()
    cipher = ffx.FF1(os.urandom(32), radix=10)
    started = time.perf_counter()
    frame["token"] = frame["ssn"].map(lambda ssn: cipher.encrypt(ssn.replace("-", "")))
    theirs = len(frame) / (time.perf_counter() - started)
    return [
        Row(
            what=f"tokenize {ROWS:,} SSNs, files to files",
            ours=ours,
            unit="rows/s",
            peer=f"pandas and libffx, {len(frame):,}",
            theirs=theirs,
        ),
    ]
