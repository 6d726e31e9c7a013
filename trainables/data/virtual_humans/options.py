"""Options of the commands that render: as they are given, and as settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from trainables.data.command_line import at_least_one, size
from trainables.data.virtual_humans.settings import RenderSettings
from trainables.settings import parse


def add_rendering(add: Callable[..., Any]) -> None:
    """`add`: a parser's `add_argument`."""
    add("--labels", metavar="REGEX", help="over a file's path, with (?P<label>) [and (?P<group>)]")
    add("--heldout-share", type=float, default=0.25, help="of the motions (default: 0.25)")
    add("--seconds", type=float, default=4.0, help="length of a clip (default: 4)")
    add("--size", type=size, default=(340, 256), metavar="WxH", help="pixels (default: 340x256)")
    add("--people", type=at_least_one, default=3, help="most in a clip, 1 to 3 (default: 3)")
    add("--cast", type=at_least_one, default=200, help="people to draw from (default: 200)")
    add("--cameras", type=at_least_one, default=200, help="camera set-ups (default: 200)")


def render_settings(
    arguments: argparse.Namespace, motions: str, *, footage: str | None, places: int | None
) -> RenderSettings:
    """`motions`, `footage`: hashes of what they hold. Raises ValueError, naming the option."""
    width, height = arguments.size
    given = {
        "seed": arguments.seed,
        "clips": arguments.clips,
        "heldout_clips": arguments.heldout,
        "heldout_share": arguments.heldout_share,
        "seconds": arguments.seconds,
        "frames_per_second": arguments.fps,
        "width": width,
        "height": height,
        "most_people": arguments.people,
        "cast": arguments.cast,
        "cameras": arguments.cameras,
        "crf": arguments.crf,
        "motions": motions,
        "footage": footage,
        "places": places,
    }
    return parse(RenderSettings, given, "options")
