from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.toy_videos import toy_videos
from trainables.data.catalog import Dataset
from trainables.stage_store import StageStore


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """The toy datasets as small mp4 files."""
    return toy_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "stages")
