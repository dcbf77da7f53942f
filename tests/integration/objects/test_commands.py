"""`cloister object` as a person types it, in files and in S3."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.errors import UnavailableError
from cloister_aws.objects import S3ObjectStore, S3Upload
from cloister_host.embedded import embedded_host
from local_cloud.s3 import LocalS3

CLOISTER = str(Path(sys.executable).with_name("cloister"))
CONTENT = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def s3():
    with LocalS3() as local:
        local.client().create_bucket(Bucket="objects")
        yield local


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant()
        tenant.admin.call("key.create", {"key": "documents", "purpose": "seal"})
        tenant.principal("app", [("seal", "key/documents"), ("unwrap", "key/documents")])
        yield tenant
        tenant.admin.close()


@pytest.fixture
def run(tenant, s3, tmp_path):
    (tmp_path / "scan.pdf").write_bytes(CONTENT)

    def run(*arguments, stderr=subprocess.PIPE, **settings):
        return subprocess.run(
            [CLOISTER, "object", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **s3.environment, **tenant.environment("app"), **settings},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("place", ["scan.sealed", "s3://objects/scan"])
def test_a_file_goes_out_sealed_and_comes_back(run, tmp_path, place):
    put = run(
        "put", "scan.pdf", place, "--key=documents", "-c", "customer=17", "--content-type=application/pdf"
    )
    assert put.returncode == 0, put.stderr
    assert json.loads(put.stdout) == {"kid": "documents.1", "cty": "application/pdf"}
    assert json.loads(run("verify", place, "-c", "customer=17").stdout)["bytes"] == len(CONTENT)
    got = run("get", place, "back.pdf", "-c", "customer=17")
    assert json.loads(got.stdout) == {"bytes": len(CONTENT)}
    assert (tmp_path / "back.pdf").read_bytes() == CONTENT
    assert (tmp_path / "back.pdf").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "arguments",
    [("put", "scan.pdf", "watched.sealed", "--key=documents"), ("verify", "s"), ("get", "s", "watched.pdf")],
    ids=lambda arguments: arguments[0],
)
def test_who_watches_sees_a_bar_and_who_does_not_sees_none(run, arguments):
    assert run("put", "scan.pdf", "s", "--key=documents").stderr == ""
    ours, theirs = pty.openpty()
    try:
        done = run(*arguments, stderr=theirs, TERM="xterm")
        os.close(theirs)
        seen = b""
        # Linux reports the end of a terminal that nobody writes to any more as an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                seen += part
    finally:
        os.close(ours)
    assert done.returncode == 0
    assert json.loads(done.stdout)  # the answer itself stays clean
    assert "━".encode() in seen
    assert b"3.0/3.0 MB" in seen


def test_an_object_that_does_not_open_leaves_no_file(run, tmp_path):
    run("put", "scan.pdf", "scan.sealed", "--key=documents")
    raw = bytearray((tmp_path / "scan.sealed").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "scan.sealed").write_bytes(raw)
    for arguments in (("get", "scan.sealed", "back.pdf"), ("verify", "scan.sealed")):
        failed = run(*arguments)
        assert failed.returncode != 0
        assert "error [open]" in failed.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"scan.pdf", "scan.sealed"}


def test_an_upload_goes_on_from_its_journal(run, tmp_path, s3, tenant):
    class Cut(S3Upload):
        def put(self, part):
            raise UnavailableError("the connection is gone")

    class Store(S3ObjectStore):
        def upload(self, name, *, only_new, resume=None):
            whole = super().upload(name, only_new=only_new, resume=resume)
            return Cut(whole._s3, whole._place, only_new=only_new)

    journal = tmp_path / "upload.json"
    with (
        tenant.host.client(tenant.name, tenant.key_file("app")) as client,
        (tmp_path / "scan.pdf").open("rb") as source,
        pytest.raises(UnavailableError),
    ):
        client.upload_object(
            source,
            Store("objects", s3=s3.client()),
            "journaled",
            key="documents",
            journal=lambda state: journal.write_bytes(state.to_bytes()),
        )
    done = run("put", "scan.pdf", "s3://objects/journaled", "--key=documents", "--journal=upload.json")
    assert done.returncode == 0, done.stderr
    assert not journal.exists()
    assert json.loads(run("verify", "s3://objects/journaled").stdout)["bytes"] == len(CONTENT)
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket="objects")


def test_what_cannot_be_done_is_said_in_a_line(run, tmp_path):
    for arguments, said in (
        (("put", "nothing.pdf", "out", "--key=documents"), "cannot be read"),
        (("put", "scan.pdf", "s3://objects", "--key=documents"), "not the URL of an object"),
        (("put", "scan.pdf", "scan.pdf", "--key=documents", "--only-new"), "exists already"),
        (("get", "s3://objects/nowhere", "back.pdf"), "there is no such object"),
        (("get", "scan.pdf", "back.pdf"), "not a sealed object"),
    ):
        failed = run(*arguments)
        assert failed.returncode != 0
        assert said in failed.stderr
        assert "Traceback" not in failed.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"scan.pdf"}
