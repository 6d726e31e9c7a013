from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import S3, s3_server
from trainables.storage import object_files
from trainables.storage.folder import Folder


@pytest.fixture(scope="package")
def s3() -> Iterator[S3]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
        server.refusing = False


@pytest.fixture
def bucket(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A new folder in a bucket; copies of its files go below this test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = f"bucket-{secrets.token_hex(4)}"
    s3.make_bucket(name)
    return Folder(f"s3://{name}/some/where")


@pytest.fixture
def google_bucket_faked_by_s3(bucket: Folder, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Google's client, whose words the proxy before moto puts into S3's."""
    monkeypatch.setattr(object_files, "CLIENT", {**object_files.CLIENT, "allow_http": True})
    key = {"gcs_base_url": s3.endpoint, "disable_oauth": True}
    names = ("client_email", "private_key", "private_key_id")
    monkeypatch.setenv(
        "GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps({**key, **dict.fromkeys(names, "")})
    )
    return Folder(bucket.url.replace("s3://", "gs://"))


@pytest.fixture(params=["disk", "bucket", "google_bucket_faked_by_s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """What is true of every kind of storage is tested on each."""
    if request.param == "disk":
        return Folder(str(tmp_path / "some" / "where"))
    found: Folder = request.getfixturevalue(request.param)
    return found
