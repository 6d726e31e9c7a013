"""What `ray job submit --working-dir .` uploads: Ray's own packaging of a copy of the project."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

from tests.test_architecture import PACKAGES, ROOT

MEBIBYTE = 2**20
LEFT_OUT = (
    "runs/demo/trials/0000.json",
    "runs/stages/0123456789abcdef/weights-01234567.safetensors",
    "runs-of-last-week/summary.json",
    "data/ucf101/v_Archery_g01_c01.avi",
    "mlruns/0/meta.yaml",
    "recommended.safetensors",
    ".venv/lib/python3.11/site-packages/torch/lib/libtorch.so",
    ".venv-gpu/bin/python",
    ".git/objects/pack/pack-0.pack",
    ".mypy_cache/3.11/cache.db",
    "sweeps/__pycache__/run.cpython-311.pyc",
    "build/lib/sweeps/run.py",
    ".env",
    ".env.local",
    ".netrc",
    "cluster/launch/.env",
    ".sweeps.env",
    "cluster/launch/production.env",
    "id_rsa",
    "google-credentials.json",
    ".aws/credentials",
    "cluster/ray.token",
    "key.pem",
)
KEPT = ("my.yaml", "sweeps/catalogs/mine.yaml", "search_spaces/mine.yaml", "my_list.csv")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, as a user has it who has worked with it."""
    folder = tmp_path / "project"
    skip = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in (".gitignore", ".rayignore", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def uploaded(folder: Path, package: Path) -> list[str]:
    """The names in the package that Ray's job client would make of `folder`."""

    def make(directory: str, excludes: list[str], is_file: bool = False) -> None:
        create_package(directory, package, include_gitignore=True, excludes=excludes)

    upload_working_dir_if_needed(
        {"working_dir": str(folder)}, include_gitignore=True, upload_fn=make
    )
    with zipfile.ZipFile(package) as file:
        return file.namelist()


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_job_uploads_the_code_and_neither_results_data_environments_nor_secrets(
    project: Path, tmp_path: Path
) -> None:
    for name in KEPT:
        (project / name).write_text("mine")
    wanted = files_of(project)
    for name in LEFT_OUT:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(b"planted-secret")
            file.truncate(64 * MEBIBYTE)
    package = tmp_path / "package.zip"
    assert {name for name in uploaded(project, package) if not name.endswith("/")} == wanted
    assert package.stat().st_size < 4 * MEBIBYTE  # of what is left out, each file has 64
    with zipfile.ZipFile(package) as file:
        others = [name for name in file.namelist() if not name.startswith("tests/")]
        assert not any(b"planted-secret" in file.read(name) for name in others)
