"""Objects in S3, in what speaks its protocol, or in Google Cloud Storage, as files.

The only file that imports obstore. Its writes are atomic and its conditional ones are the
server's own (If-None-Match on S3, x-goog-if-generation-match on Google's).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import GCSStore, S3Store

from trainables.storage.files import Data, StoredFile
from trainables.storage.node_cache import cached

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PART_BYTES = 16 * 2**20  # of a multipart upload, of which S3 takes 10,000 parts
# A moment's trouble is the client's to bear, what lasts longer is `Folder`'s.
RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
CLIENT: ClientConfig = {"timeout": timedelta(hours=2), "read_timeout": timedelta(seconds=60)}


class ObjectFiles:
    """One bucket. Credentials, region and endpoint come from the environment, as its tools want it.

    For S3 that is boto3's chain: variables, profiles, roles of the pod, the container or the
    machine. For Google: GOOGLE_APPLICATION_CREDENTIALS, gcloud's own, the machine's.
    """

    def __init__(self, bucket: str) -> None:
        """`bucket`: s3://BUCKET or gs://BUCKET. Raises ValueError without credentials for it."""
        self._bucket = bucket
        self._store = _connect(bucket)

    def read(self, path: str) -> bytes:
        with _as_os_errors(path):
            return obstore.get(self._store, self._key(path)).bytes().to_bytes()

    def write(self, path: str, data: Data) -> None:
        with _as_os_errors(path):
            obstore.put(self._store, self._key(path), data, chunk_size=PART_BYTES)

    def create(self, path: str, data: Data) -> bool:
        with _as_os_errors(path):
            try:
                obstore.put(self._store, self._key(path), data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def copy(self, path: str, from_: str) -> None:
        with _as_os_errors(from_):
            obstore.copy(self._store, self._key(from_), self._key(path))

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with _as_os_errors(path):
                try:
                    obstore.delete(self._store, self._key(path))
                except FileNotFoundError:
                    pass

    def remove(self, path: str) -> None:
        self.delete([f"{path}/{file.name}" for file in self.listed(path)])

    def listed(self, path: str) -> list[StoredFile]:
        prefix = self._key(path).rstrip("/")
        with _as_os_errors(path):
            found = obstore.list(self._store, prefix or None).collect()
        inside = len(prefix) + 1 if prefix else 0
        return [
            StoredFile(
                name=each["path"][inside:],
                size=each["size"],
                written=each["last_modified"].timestamp(),
            )
            for each in found
        ]

    def folders(self, path: str) -> list[str]:
        prefix = self._key(path).rstrip("/")
        with _as_os_errors(path):
            found = obstore.list_with_delimiter(self._store, prefix or None)
        return [each.rpartition("/")[2] for each in found["common_prefixes"]]

    def local(self, path: str, cache_bytes: int) -> Path:
        def fetch(to: Path) -> None:
            with _as_os_errors(path), to.open("wb") as file:
                for chunk in obstore.get(self._store, self._key(path)):
                    file.write(chunk)

        return cached(path, fetch, cache_bytes)

    def _key(self, path: str) -> str:
        return path.removeprefix(self._bucket).lstrip("/")


def _connect(bucket: str) -> ObjectStore:
    scheme, _, name = bucket.partition("://")
    if scheme == "gs":
        return GCSStore(name, client_options=CLIENT, retry_config=RETRY)
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        credentials = Boto3CredentialProvider()
    except ValueError:
        raise ValueError(
            f"storage {bucket}: no AWS credentials are found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the machine a role"
        ) from None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    where: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    options: ClientConfig = {**CLIENT, "allow_http": (endpoint or "").startswith("http://")}
    return S3Store(
        name,
        client_options=options,
        retry_config=RETRY,
        credential_provider=credentials,
        **where,
    )


@contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """What obstore raises as OSErrors, and whatever may pass as EIO."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such object or bucket", path) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _first_line(error), path) from None
    except BaseError as error:
        raise OSError(errno.EIO, _first_line(error), path) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
