"""PySpark in local mode against a real host: every operation, what leaks, a rotation that breaks off."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest

from cloister.errors import CloisterError
from cloister_host.embedded import embedded_host
from support import require
from support.documents import DOCS, run_blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # PySpark's own: sockets and processes that it leaves to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SSNS = [
    f"{area:03}-{group:02}-{serial:04}"
    for area, group, serial in zip(
        range(200, 500), [n % 89 + 10 for n in range(300)], range(4000, 4300), strict=True
    )
]
FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("ends-even", output=boolean(), batch=True)
def ends_even(ssn: Annotated[list[str], sealed("ssn", context=["member"])]) -> list[bool]:
    return [int(value[-1]) % 2 == 0 for value in ssn]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def tenant(host):
    tenant = host.tenant()
    admin = tenant.admin
    admin.call("key.create", {"key": "ssn", "purpose": "seal"})
    mask = [{"to": ["*"], "show": "masked", "pattern": "***-**-{last:4}"}]
    admin.call("policy.create", {"policy": "ssn", "plan": "ff1", "type": "ssn", "views": mask})
    admin.call("policy.create", {"policy": "vault", "plan": "vault", "type": "ssn", "views": mask})
    keys = [(right, "key/ssn") for right in ("seal", "rewrap", "unwrap")]
    rights = ("tokenize", "detokenize-masked", "retokenize")
    policies = [(right, f"policy/{policy}") for right in rights for policy in ("ssn", "vault")]
    tenant.principal("spark", [*keys, *policies])
    yield tenant
    admin.close()


@pytest.fixture(scope="module")
def spark(tmp_path_factory, tenant):
    require.module("pyspark", install="pip install 'cloister[spark]'")
    require.binary("java", install="install a Java 17 runtime")
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    folder = tmp_path_factory.mktemp("spark")
    (folder / "events").mkdir()
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.local.dir", str(folder))
        .config("spark.eventLog.enabled", "true")
        .config("spark.eventLog.dir", (folder / "events").as_uri())
        .config("spark.eventLog.compress", "false")
        .getOrCreate()
    )
    session.events = folder / "events"
    yield session
    session.stop()


@pytest.fixture
def settings(tenant):
    names = {
        "CLOISTER_URL": "url",
        "CLOISTER_TENANT": "tenant",
        "CLOISTER_POLICY": "policy",
        "CLOISTER_API_KEY_FILE": "api_key_file",
    }
    return {names[name]: value for name, value in tenant.environment("spark").items()}


@pytest.fixture
def cloister(settings):
    from cloister_spark import Cloister

    return Cloister(**settings)


@pytest.fixture(scope="module")
def members(spark, tmp_path_factory):
    """A table of five files with a null in it; read from disk, as in life: no literal stands in a plan."""
    path = str(tmp_path_factory.mktemp("table") / "members")
    rows = [(member, ssn) for member, ssn in enumerate([*SSNS, None])]
    spark.createDataFrame(rows, "member bigint, ssn string").repartition(5).write.parquet(path)
    return path


def column(frame, name):
    return {row["member"]: row[name] for row in frame.collect()}


def test_values_are_sealed_for_their_rows_and_open_there_only(spark, members, cloister, tenant):
    sealed = cloister.seal(spark.read.parquet(members), "ssn", key="ssn", context=["member"])
    assert sealed.columns == ["member", "ssn", "ssn_error"]
    found = column(sealed, "ssn")
    assert found.pop(len(SSNS)) is None
    with host_client(tenant) as client:
        opened = client.open_column(
            [found[member] for member in range(len(SSNS))],
            contexts=[{"member": str(member)} for member in range(len(SSNS))],
        )
    assert opened == SSNS


def host_client(tenant):
    return tenant.host.client(tenant.name, tenant.key_file("spark"))


def test_tokens_go_out_and_come_back_masked(spark, members, cloister):
    tokens = cloister.tokenize(spark.read.parquet(members), "ssn", policy="ssn", into="token")
    found = column(tokens, "token")
    assert found[len(SSNS)] is None
    assert all(found[member] != ssn and len(found[member]) == 11 for member, ssn in enumerate(SSNS))
    shown = column(cloister.detokenize(tokens, "token", policy="ssn"), "token")
    assert shown == {len(SSNS): None} | {m: f"***-**-{ssn[-4:]}" for m, ssn in enumerate(SSNS)}
    assert cloister.progress.rows >= 3 * len(found)
    assert cloister.progress.failed == 0


def test_a_frame_that_is_computed_twice_has_the_same_random_tokens(spark, members, cloister):
    tokens = cloister.tokenize(spark.read.parquet(members), "ssn", policy="vault")
    first, second = column(tokens, "ssn"), column(tokens, "ssn")
    assert first == second
    assert len(set(first.values())) == len(SSNS) + 1


def test_each_process_of_an_executor_attests_once(spark, members, settings):
    from cloister_spark import Cloister

    # settings that no other test has, so that no worker has a client for them yet
    cloister = Cloister(**settings, timeout_seconds=59)
    frame = spark.read.parquet(members).repartition(20)
    for _ in range(3):
        cloister.tokenize(frame, "ssn", policy="ssn").count()
        cloister.tokenize(frame, "ssn", policy="ssn").write.format("noop").mode("overwrite").save()
    assert cloister.progress.calls >= 60
    # two task slots; Spark may keep a few idle workers more
    assert 1 <= cloister.progress.attested <= 4


def test_a_bad_row_is_an_error_of_its_own(spark, cloister):
    frame = spark.createDataFrame([(1, "123-45-6789"), (2, "no ssn")], "member bigint, ssn string")
    out = cloister.tokenize(frame, "ssn", policy="ssn")
    assert column(out, "ssn")[2] is None
    assert column(out, "ssn_error")[1] is None
    assert column(out, "ssn_error")[2]


def test_a_mask_is_applied_without_a_host(spark, members):
    from cloister.mask import MASKED
    from cloister_spark import Cloister

    nowhere = Cloister(url="https://127.0.0.1:1")
    masked = nowhere.mask(spark.read.parquet(members), {"ssn": MASKED("***-**-{last:4}")})
    assert masked.columns == ["member", "ssn"]
    assert column(masked, "ssn")[0] == f"***-**-{SSNS[0][-4:]}"


def test_a_function_answers_every_row(spark, members, cloister, tenant, tmp_path):
    (tmp_path / "ends_even.py").write_text(FUNCTION)
    deployed = tenant.deploy(tmp_path)
    tenant.admin.call(
        "grant.create",
        {"principal": "spark", "action": "invoke", "resource": "function/ends-even"},
    )
    sealed = cloister.seal(spark.read.parquet(members), "ssn", key="ssn", context=["member"])
    answered = cloister.invoke(
        sealed.drop("ssn_error"),
        f"ends-even@{deployed['digest']}",
        inputs=["ssn"],
        context=["member"],
        into="even",
        returns="boolean",
    )
    expected = {member: int(ssn[-1]) % 2 == 0 for member, ssn in enumerate(SSNS)}
    assert column(answered, "even") == expected | {len(SSNS): None}
    # bound to another row, a value does not open
    swapped = sealed.drop("ssn_error").withColumn("member", (1 - sealed.member)).where("member in (0, 1)")
    refused = cloister.invoke(
        swapped,
        f"ends-even@{deployed['digest']}",
        inputs=["ssn"],
        context=["member"],
        into="even",
        returns="boolean",
    )
    assert set(column(refused, "even_error").values()) == {"open"}


def test_no_credential_and_no_value_is_in_a_plan_or_in_the_event_log(spark, members, cloister, tenant):
    frame = spark.read.parquet(members)
    secret = tenant.key_file("spark").read_text().strip()
    plans = []
    for made in (
        cloister.seal(frame, "ssn", key="ssn", context=["member"]),
        cloister.tokenize(frame, "ssn", policy="vault"),
    ):
        made.write.format("noop").mode("overwrite").save()
        plans.append(made._jdf.queryExecution().toString())
    with pytest.raises(Exception, match="DeniedError") as refused:
        cloister.tokenize(frame, "ssn", policy="absent").collect()
    plans.append(str(refused.value))
    logged = "".join(
        path.read_text(errors="replace") for path in Path(spark.events).rglob("*") if path.is_file()
    )
    assert "mapInArrow" in logged or "MapInArrow" in logged
    for text in (*plans, logged):
        assert secret not in text
        assert secret.rpartition("_")[2] not in text
        assert not [ssn for ssn in SSNS if ssn in text]


def test_what_a_plan_carries_holds_no_credential(cloister, tenant, spark, members):
    from pyspark.serializers import CloudPickleSerializer

    carried = CloudPickleSerializer().dumps(cloister._connection)
    secret = tenant.key_file("spark").read_text().strip()
    assert secret.encode() not in carried
    assert str(tenant.key_file("spark")).encode() in carried


def test_a_refusal_names_its_code_and_fails_the_job(spark, members, cloister):
    with pytest.raises(Exception, match="DeniedError"):
        cloister.tokenize(spark.read.parquet(members), "ssn", policy="absent").collect()


@pytest.mark.parametrize("broken", [False, True], ids=["in one go", "in two"])
def test_a_whole_table_is_moved_to_current_keys(  # noqa: PLR0917 (fixtures)
    spark, members, cloister, settings, tenant, tmp_path, broken
):
    from cloister_spark import Cloister, Retokenize, Rewrap

    source, target = str(tmp_path / "old"), str(tmp_path / "new")
    old = cloister.seal(spark.read.parquet(members), "ssn", key="ssn", context=["member"], error="e1")
    plain = spark.read.parquet(members).withColumnRenamed("ssn", "token")
    tokens = cloister.tokenize(plain, "token", policy="ssn", error="e2")
    joined = old.join(tokens, "member").select("member", "ssn", "token")
    damaged = "case when member = 7 then 'damaged' else ssn end as ssn"
    joined.selectExpr("member", damaged, "token").repartition(6).write.parquet(source)
    before = {row["member"]: row for row in spark.read.parquet(source).collect()}

    admin = tenant.admin
    version = admin.call("policy.show", {"policy": "ssn"})["key_version"]
    kid = admin.call("key.rotate", {"key": "ssn"})["kid"]
    admin.call("policy.rotate", {"policy": "ssn"})
    steps = [
        Rewrap(column="ssn", key="ssn", context=("member",)),
        Retokenize(column="token", policy="ssn", key_version=version),
    ]
    told = []

    class StopError(Exception):
        pass

    def stop(done, parts):
        told.append((done, parts))
        if broken and done == 2:
            raise StopError

    rotate = {"source": source, "target": target, "steps": steps, "files_per_part": 2, "told": stop}
    if broken:
        with pytest.raises(StopError):
            cloister.rotate(spark, **rotate)
        # a part that was half written, by a driver that died
        part = next(Path(target).glob("rotated-00000-*.parquet"))
        part.rename(part.with_name(part.name.replace("00000", "00002", 1)))
        journal = Path(target, "_cloister", "journal.json")
        state = json.loads(journal.read_text())
        state["done"].pop("0")
        journal.write_text(json.dumps(state))
        Path(target, "_cloister", ".journal.json.crc").unlink(missing_ok=True)
    report = Cloister(**settings).rotate(spark, **(rotate | {"told": None}))
    assert (report.parts, report.resumed, report.failed) == (3, 1 if broken else 0, 1)

    after = {row["member"]: row for row in spark.read.parquet(target).collect()}
    assert spark.read.parquet(target).count() == len(before) == len(SSNS) + 1
    with host_client(tenant) as client:
        for member in range(len(SSNS)):
            if member == 7:
                assert after[member]["ssn"] == "damaged"
                continue
            from cloister.envelope import Sealed

            assert Sealed(after[member]["ssn"]).kid == kid
            assert after[member]["token"] != before[member]["token"]
        opened = client.open_column([after[0]["ssn"]], contexts=[{"member": "0"}])
        assert opened == [SSNS[0]]
    shown = column(cloister.detokenize(spark.read.parquet(target), "token", policy="ssn"), "token")
    assert shown[3] == f"***-**-{SSNS[3][-4:]}"
    failed = spark.read.parquet(f"{target}/_failed").collect()
    assert [(row["member"], row["ssn_error"], row["token_error"]) for row in failed] == [(7, "open", None)]

    again = cloister.rotate(spark, **(rotate | {"told": None}))
    assert (again.resumed, again.rows, again.failed) == (3, 0, 1)


def test_a_rotation_does_not_go_on_with_another_source(spark, members, cloister, tmp_path):
    from cloister.errors import ConfigurationError
    from cloister_spark import Retokenize

    source, target = str(tmp_path / "old"), str(tmp_path / "new")
    tokens = cloister.tokenize(spark.read.parquet(members), "ssn", policy="ssn").drop("ssn_error")
    tokens.coalesce(1).write.parquet(source)
    steps = [Retokenize(column="ssn", policy="ssn")]
    cloister.rotate(spark, source, target, steps)
    with pytest.raises(ConfigurationError, match="begun from another source or with other steps"):
        cloister.rotate(spark, source, target, [Retokenize(column="ssn", policy="vault")])
    tokens.coalesce(1).write.mode("append").parquet(source)
    with pytest.raises(ConfigurationError, match="begun from another source"):
        cloister.rotate(spark, source, target, steps)
    with pytest.raises(ConfigurationError, match="is no rotation"):
        cloister.rotate(spark, source, members, steps)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"column": "absent"}, "no column"),
        ({"error": "member"}, "is there already"),
        ({"error": "ssn"}, "is there already"),
        ({"policy": "No Name"}, "cannot be used"),
    ],
)
def test_what_cannot_be_is_said_before_a_job_starts(spark, members, cloister, options, why):
    from cloister.errors import ConfigurationError

    given = {"column": "ssn", "policy": "ssn"} | options
    with pytest.raises(ConfigurationError, match=why):
        cloister.tokenize(spark.read.parquet(members), given.pop("column"), **given)


def test_the_page_works_as_written(spark, members, tenant, tmp_path):
    """In processes of their own, with the settings in the environment as on a cluster."""
    (tmp_path / "function").mkdir()
    (tmp_path / "function" / "ends_even.py").write_text(FUNCTION)
    tenant.deploy(tmp_path / "function")
    grant = {"principal": "spark", "action": "invoke", "resource": "function/ends-even"}
    with contextlib.suppress(CloisterError):  # granted by another test
        tenant.admin.call("grant.create", grant)
    spark.read.parquet(members).where("member < 40").repartition(3).write.parquet(str(tmp_path / "members"))
    (tmp_path / "policy.toml").write_bytes(tenant.host.policy.read_bytes())
    environment = tenant.environment("spark")
    del environment["CLOISTER_POLICY"]
    printed = run_blocks(
        DOCS / "spark.md",
        tmp_path,
        {
            **environment,
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "JAVA_HOME": os.environ.get("JAVA_HOME", ""),
        },
    )
    assert f"***-**-{SSNS[0][-4:]}" in printed[0]
    assert "Progress(rows=" in printed[0]
    assert "true" in printed[1]
    assert "Rotated(parts=1, resumed=0, rows=40, failed=0)" in printed[2]
