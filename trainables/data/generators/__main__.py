"""Samples a generator to files: clips G(z) and their views G(z + w), w ~ N(0, scale^2).

`humans` renders virtual humans from motion capture: views of a clip show the same motions at the
same time on other people, in other clothes, light and surroundings, by another camera. `program`
takes a generative model as an exported program. The same settings give the same pixels, whatever
the number of workers. Interrupted or killed, the same command goes on; with more scales it adds
their views.

`train` makes such a program: a small model of the clips of any dataset, learnt in minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from trainables.data.clip_jobs import with_progress
from trainables.data.command_line import (
    add_workers,
    at_least_one,
    check_names,
    exit_status,
    parser_of,
)
from trainables.data.generators.exported import RATE, ExportedProgram, program_at
from trainables.data.generators.generator import Generator
from trainables.data.generators.learn_command import add_training, train
from trainables.data.generators.renderers import VirtualHumans
from trainables.data.generators.sampling import (
    Drawn,
    claim,
    jobs_of,
    sample_views,
    write_lists,
    write_pairs,
)
from trainables.data.generators.steering import (
    TRANSFORMS,
    SteeredProgram,
    SteeringSettings,
    train_walk,
    write_walk,
)
from trainables.data.manifests import Humans
from trainables.data.virtual_humans.options import add_rendering, render_settings
from trainables.data.virtual_humans.takes import checked_motions, find_takes
from trainables.settings import parse

NOTES = """a program:
  A .pt2 file of torch.export.save. It is code: load it only if you trust who made it. It takes a
  latent, float32 [1, D], and with --classes the number of a class, int64 [1]. It gives a clip
  [1, T, H, W, 3] or an image [1, H, W, 3], uint8, or float from 0 to 1. One that `train` wrote
  knows its classes, its rate, whom it shows and the licence of what it learnt from.

what `humans` and `program` write:
  OUT/NAME/train/000000.mp4, ...              the clips G(z), H.264
  OUT/NAME.views/0.5/train/000000.mp4, ...    the view of scale 0.5 of each, under the same path
  OUT/NAME.csv        the manifest: path,label,group,split
  OUT/NAME.latents.safetensors   of a program: z of each clip, in the manifest's order
  OUT/NAME.json       all settings
  OUT/catalog.yaml    an entry NAME with its `views`; `contrastive.view_scale` chooses among them

examples:
  python -m trainables.data.generators humans mocap data --clips 5000 --scales 0.25 0.5 1 2
  python -m trainables.data.generators program gan.pt2 data --scales 0.2 --classes run jump
  python -m trainables.data.generators program gan.pt2 data --name steered --steer zoom brightness
  python -m trainables.data.generators train my.yaml synthetic data/flow.pt2
  python -m trainables.data.generators program data/flow.pt2 data --scales 0.2 --clips 5000

exit status: 0 done, 1 done but some clips could not be drawn (the catalog is not written), 2 the
generator or a setting is wrong, or the disk is full, 130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status that `--help` tells."""
    return exit_status(_run, _parser().parse_args(argv))


def _run(arguments: argparse.Namespace, console: Console) -> int:
    return train(arguments, console) if arguments.kind == "train" else _sample(arguments, console)


def _sample(arguments: argparse.Namespace, console: Console) -> int:
    out, name, sheet = arguments.out, arguments.name, arguments.contact_sheet
    scales = sorted(set(arguments.scales))
    check_names(name, sheet)
    if not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"--scales {scales}: each must be above 0; 0 is the clip itself")
    generator: Generator
    humans: Humans | None
    if arguments.kind == "humans":
        generator, source = _humans(arguments, console), arguments.motions
        humans, licence = "virtual", arguments.licence
    else:
        program, source = _program(arguments), arguments.program
        humans = program.humans(arguments.humans)
        licence = arguments.licence or program.licence
        generator = _steered(program, arguments, console) if arguments.steer else program
    total, made, wrong = jobs_of(generator, scales), 0, list[Drawn]()
    with claim(generator, out, name, str(source.resolve())):
        drawn = sample_views(generator, out, name, scales, arguments.workers)
        for chunk in with_progress(drawn, name, total, lambda: "", console):
            made += sum(each.made for each in chunk)
            wrong += [each for each in chunk if each.error]
        for each in wrong[:5]:
            console.print(escape(each.error), soft_wrap=True)
        if wrong:
            console.print(f"{len(wrong):,} clips could not be drawn; the same command tries again")
            return 1
        catalog = write_lists(generator, out, name, scales, humans=humans, licence=licence)
    console.print(f"{name}: {made:,} clips and views made, {total - made:,} were there")
    if sheet is not None:
        write_pairs(sheet, out, name, scales, rows=8)
        console.print(f"contact sheet: {sheet}", soft_wrap=True)
    console.print(f"catalog: {catalog}", soft_wrap=True)
    return 0


def _humans(arguments: argparse.Namespace, console: Console) -> VirtualHumans:
    takes = find_takes(arguments.motions, arguments.labels)
    motions = checked_motions(takes, arguments.workers, console)
    return VirtualHumans(
        render_settings(arguments, motions, footage=None, places=None), tuple(takes)
    )


def _program(arguments: argparse.Namespace) -> ExportedProgram:
    program = program_at(
        arguments.program,
        "options",
        seed=arguments.seed,
        clips=arguments.clips,
        heldout_clips=arguments.heldout,
        classes=arguments.classes,
        frames_per_second=arguments.fps,
        crf=arguments.crf,
    )
    program.check()
    return program


def _steered(
    program: ExportedProgram, arguments: argparse.Namespace, console: Console
) -> SteeredProgram:
    """With its walk, trained unless it is there."""
    given = {
        "transforms": tuple(dict.fromkeys(arguments.steer)),
        "steps": arguments.steer_steps,
        "seed": arguments.seed,
    }
    settings = parse(SteeringSettings, given, "options")
    walk = arguments.out / f"{arguments.name}.walk.safetensors"
    steered = SteeredProgram(program, settings, walk)
    with claim(steered, arguments.out, arguments.name, str(program.path.resolve())):
        if not walk.exists():
            trained, error, staying = train_walk(program, settings, console)
            console.print(
                f"the walk: mean squared error {error:.5f} to the changed pixels, without a step "
                f"{staying:.5f}"
            )
            write_walk(trained, walk)
    return steered


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("trainables.data.generators", __doc__, NOTES)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="{humans,program,train}")
    humans = kinds.add_parser("humans", help="virtual humans, from motion capture")
    humans.add_argument("motions", type=Path, metavar="MOTIONS", help="the folder of the BVH files")
    _add_common(humans, name="humans_views")
    humans.add_argument(
        "--fps", type=at_least_one, default=RATE, help=f"frames per second (default: {RATE})"
    )
    add_rendering(humans.add_argument)
    program = kinds.add_parser("program", help="a generative model, exported by torch.export")
    program.add_argument("program", type=Path, metavar="FILE.pt2", help="code: trust who made it")
    _add_common(program, name="generated")
    add = program.add_argument
    add("--classes", nargs="+", default=[], metavar="NAME", help="by the number that it takes")
    add("--fps", type=at_least_one, help=f"frames per second (default: its own, or {RATE})")
    add(
        "--steer",
        nargs="+",
        default=[],
        metavar="CHANGE",
        help=f"views by a walk that imitates a change of pixels: {', '.join(TRANSFORMS)}; --scales "
        "are of its amount then",
    )
    add("--steer-steps", type=at_least_one, default=500, help="of its training (default: 500)")
    add(
        "--humans",
        choices=("virtual", "removed", "none", "real"),
        help="who is in what it learnt from: clips of a model of real people are real (default: "
        "what it says, or virtual)",
    )
    add_training(kinds.add_parser("train", help="a program, learnt from a dataset's clips"))
    return parser


def _add_common(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="a folder; it may hold other datasets")
    add(
        "--scales",
        type=float,
        nargs="+",
        default=[0.2],
        metavar="S",
        help="of w, a view each (default: 0.2)",
    )
    add("--name", default=name, help=f"of the dataset (default: {name})")
    add("--clips", type=at_least_one, default=1000, help="training clips (default: 1000)")
    add("--heldout", type=int, default=0, help="held-out clips (default: 0)")
    add("--crf", type=int, default=22, help="x264's quality, lower is better (default: 22)")
    add("--licence", help="of what it is made from, for the catalog and who gets the weights")
    add("--seed", type=int, default=0, help="(default: 0)")
    add("--contact-sheet", type=Path, metavar="FILE", help="a picture of 8 clips with their views")
    add_workers(parser, "draw")


if __name__ == "__main__":
    sys.exit(main())
