"""The datasets of a sweep: a catalog's, and those of the demo world, which is rendered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sweeps.checks import check_names
from sweeps.sweep import Sweep
from trainables.data.catalog import Dataset, load_catalog
from trainables.data.catalog_entries import catalog_names
from trainables.data.clip_jobs import with_progress
from trainables.data.demo_world.render import render_world, write_catalog
from trainables.data.demo_world.settings import WorldSettings, world_hash
from trainables.data.files import check_files
from trainables.data.generators.renderers import DemoPeople
from trainables.data.generators.sampling import claim, jobs_of, sample_views, write_lists

VIEWS = "views"  # the source that `datasets.demo_views` adds


def sweep_datasets(
    sweep: Sweep, named: Mapping[str, str], console: Console, *, dry_run: bool
) -> dict[str, Dataset]:
    """The datasets that the sweep names, their files checked, and what is to be said of them.

    `named`: dataset -> where the sweep names it; a catalog's others are not read. A demo world is
    rendered, except in a dry run.
    """
    settings = sweep.settings.datasets
    names = {
        path: catalog_names(path) for path in map(sweep.file.parent.joinpath, settings.catalogs)
    }
    if settings.demo_world is None:
        check_names(named, {name for known in names.values() for name in known})
    places = {name: [path for path in names if name in names[path]] for name in named}
    data: dict[str, Dataset] = {}
    for path in names:  # of one name the last: what it stands in for need not be there
        data |= load_catalog(path, [name for name in named if places[name][-1:] == [path]])
    for dataset in data.values():
        for note in dataset.notes:
            console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
        check_files(dataset)
    world = {}
    if settings.demo_world is not None:
        world = _world(sweep, console, dry_run=dry_run)
    for name, paths in places.items():
        of_one_name = ["the demo world"] * (name in world) + [str(path) for path in paths]
        for before, after in pairwise(of_one_name):
            console.print(escape(f"{name} is that of {after}, not of {before}"), soft_wrap=True)
    return world | data


def _world(sweep: Sweep, console: Console, *, dry_run: bool) -> dict[str, Dataset]:
    """The demo world's datasets and views, rendered, except in a dry run."""
    world, scales = sweep.settings.datasets.demo_world, sweep.settings.datasets.demo_views
    assert world is not None
    worlds = Path(sweep.disk.url) / "worlds"
    with tempfile.TemporaryDirectory() as empty:
        if dry_run:
            catalogs = [write_catalog(world, Path(empty, "world"))]
            catalogs += [] if scales is None else [_list_views(world, scales, Path(empty))]
        else:
            catalogs = [_render(world, worlds, console)]
            catalogs += [] if scales is None else [_views(world, scales, worlds, console)]
        return {name: each for path in catalogs for name, each in load_catalog(path).items()}


def _views(world: WorldSettings, scales: Sequence[float], folder: Path, console: Console) -> Path:
    """The catalog of the demo's people as a generator, sampled unless it is there already."""
    people, out = DemoPeople(world), folder / f"{world_hash(world)}.views"
    total = jobs_of(people, scales)
    with claim(people, out, VIEWS, "demo world"):
        drawn = sample_views(people, out, VIEWS, scales, workers=2)
        for chunk in with_progress(drawn, "generator views", total, str, console):
            if errors := [each.error for each in chunk if each.error]:
                raise ValueError(errors[0])
        return _list_views(world, scales, out)


def _list_views(world: WorldSettings, scales: Sequence[float], out: Path) -> Path:
    people = DemoPeople(world)
    return write_lists(people, out, VIEWS, scales, humans="virtual", licence=None)


def _render(world: WorldSettings, folder: Path, console: Console) -> Path:
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if 10 * done // total > told:
            told = 10 * done // total
            console.print(f"rendering the demo's world: {done:,} of {total:,} clips")

    return render_world(world, folder, workers=2, on_progress=tell)
