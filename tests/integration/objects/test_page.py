"""The page on sealed objects, done as written against the three object stores."""

from __future__ import annotations

from cloister_host.embedded import embedded_host
from local_cloud.azurite import Azurite
from local_cloud.gcs import GoogleStorage
from local_cloud.s3 import LocalS3
from support import require
from support.documents import DOCS, run_blocks

CONTENT = b"%PDF-1.7 a page\n%%EOF"


def test_the_page_works_as_written(tmp_path):
    require.azurite()
    (tmp_path / "scan.pdf").write_bytes(CONTENT)
    with (
        LocalS3() as s3,
        Azurite() as azurite,
        GoogleStorage() as gcs,
        azurite.client() as blobs,
        gcs.client() as google,
        embedded_host(tmp_path / "host") as host,
    ):
        s3.client().create_bucket(Bucket="bucket")
        container = blobs.create_container("container")
        google.create_bucket("bucket")
        tenant = host.tenant()
        printed = run_blocks(
            DOCS / "objects.md",
            tmp_path,
            {
                **s3.environment,
                **gcs.environment,
                "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
                **tenant.environment("admin"),
            },
        )
        tenant.admin.close()
        assert {blob.name for blob in container.list_blobs()} == {"scans/17", "scans/18"}
    assert (tmp_path / "back.pdf").read_bytes() == CONTENT
    assert not (tmp_path / "upload.json").exists()
    assert printed[-1].strip() == repr(CONTENT[-5:])
