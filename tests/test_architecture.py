"""The rules of the layout: imports run one way, and few files know the big libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trainables.stage import CODE_VERSIONS, executed_as

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("trainables", "search_spaces", "cluster", "sweeps")
MAY_IMPORT = {
    "trainables": {"trainables"},
    "search_spaces": {"search_spaces", "trainables"},  # settings, to name a setting that is none
    "cluster": {"cluster", "trainables"},
    "sweeps": {"sweeps", "cluster", "search_spaces", "trainables"},
}
ONLY_HERE = {
    "ray": {
        f"cluster/{name}.py"
        for name in (
            *("ray_session", "resources", "gangs", "tune", "trial_process"),
            *("stages", "stages_handle", "stage_runs", "vital_signs", "spot_warning"),
        )
    },
    "mlflow": {"cluster/mlflow_runs.py"},
    "obstore": {"trainables/storage/object_files.py"},
    "optuna": {
        f"search_spaces/{name}.py" for name in ("study", "told", "cost_aware", "importance")
    },
    "decord": {"trainables/data/video_files.py"},
    "timm": {"trainables/models/timm_models.py", "trainables/data/rand_augment.py"},
    "torchvision": {
        "trainables/models/timm_models.py",
        "trainables/data/human_removal/mask_rcnn.py",
    },
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SETTINGS = (
    *("trainables/config.py", "trainables/training_settings.py"),
    "trainables/contrastive_settings.py",
    *("sweeps/sweep.py", "sweeps/search_settings.py", "trainables/bias.py"),
)


def imported(path: Path) -> set[str]:
    """Top-level names of everything the file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = imported(path) & {*PACKAGES, "tests", "benchmarks"}
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("library", ONLY_HERE)
def test_few_files_know_the_library(library: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in FILES if library in imported(path)}
    assert users <= ONLY_HERE[library]
    assert users, f"no file imports {library}: the rule guards nothing"


def test_what_is_exported_for_transformers_is_written_without_it() -> None:
    assert not {str(path.relative_to(ROOT)) for path in FILES if "transformers" in imported(path)}


def test_planning_needs_neither_torch_nor_ray_nor_decord() -> None:
    code = (
        "import sys, sweeps.sweep, sweeps.checks, sweeps.prepare\n"
        "import sweeps.searching.search, sweeps.watching.status\n"
        "print(sorted({'torch', 'ray', 'decord', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_readmes_map_names_every_file_and_only_files() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## The map", 1)[1].split("\n## ", 1)[0]
    folder, named = "", set()
    for line in section.splitlines():
        if match := re.match(r"^(\S+/)(?:\s|$)", line):
            folder = match[1]
        for name in re.findall(r"[\w.-]+\.(?:py|yaml|sh|md|toml|txt)\b", line):
            named.add(f"{folder}{name}" if line.startswith(" ") else name)
    for name in named:
        assert (ROOT / name).exists(), f"the README's map names {name}, which is not there"
    more = ("benchmarks/*.py", "sweeps/*.yaml", "search_spaces/*.yaml", "docs/*.md")
    ours = {
        str(path.relative_to(ROOT))
        for path in [*FILES, *(path for kind in more for path in ROOT.glob(kind))]
        if path.name != "__init__.py"
    }
    assert ours <= named, f"the README's map leaves out {sorted(ours - named)}"


def test_no_file_holds_two_roles() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in FILES}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES}
    assert set(project["tool"]["setuptools"]["packages"]) == there


def test_each_of_the_ten_rules_names_tests_that_exist() -> None:
    rules = re.split(r"^\d+\. ", (ROOT / "docs" / "rules.md").read_text(), flags=re.M)[1:]
    assert len(rules) == 10
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    for number, rule in enumerate(rules, start=1):
        named = set(re.findall(r"`(test_\w+)`", rule))
        assert named and named <= defined, f"rule {number}: {sorted(named - defined)} do not exist"


def read_in(tree: ast.AST) -> set[str]:
    """Names that the code reads as an attribute, or as a string key with `[...]` or `.get`."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                names.add(name)
            case ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                names.add(name)
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
                names.add(name)
    return names


def is_settings(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id == "Settings" for base in node.bases
    )


def test_no_setting_is_read_by_nobody() -> None:
    # Reading a setting to check it is not reading it: neither the classes nor their checks count.
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in FILES}
    classes = [n for file in SETTINGS for n in trees[file].body if isinstance(n, ast.ClassDef)]
    classes = [node for node in classes if is_settings(node)]
    fields = {
        f"{node.name}.{each.target.id}"
        for node in classes
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    assert {"TrialConfig.seed", "OptimizerSettings.lr_peak", "SearchSettings.space"} <= fields
    del trees["trainables/config_checks.py"]
    for tree in trees.values():
        tree.body = [node for node in tree.body if not is_settings(node)]
    read = set().union(*map(read_in, trees.values()))
    read |= {executed_as(kind) for kind in CODE_VERSIONS}  # of ExecutionSettings, by getattr
    unread = {field for field in fields if field.split(".")[1] not in read}
    assert not unread, f"settings that are read nowhere: {sorted(unread)}"
