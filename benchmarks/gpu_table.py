"""The table that gpu.sh ends with, and all its results as one JSON line.

python benchmarks/gpu_table.py LOGS SECONDS
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

PARTS = ("steps", "fed", "probe", "compiled")
KINDS = ("mae", "align", "finetune")


def result_of(log: Path) -> dict[str, Any] | None:
    """The last line that a part printed, if it came to its end."""
    lines = log.read_text().splitlines() if log.exists() else []
    if not lines or not lines[-1].startswith('{"benchmark"'):
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def rows(results: dict[str, dict[str, Any]]) -> list[tuple[str, float, float, float]]:
    """What was measured, clips a second, their share of the matrix product's rate, peak MB."""
    found = []
    for part, label in (("steps", ""), ("compiled", ", compiled")):
        for kind in KINDS:
            for whose in ("ours", "plain"):
                row = results.get(part, {}).get(kind, {}).get(whose)
                if row is None or (whose == "plain" and part == "compiled"):
                    continue
                rate, share = row["clips_per_second"]["median"], row["share_of_matrix"]["median"]
                found.append((f"{kind} {whose}{label}", rate, share, row.get("peak_mb", math.nan)))
    fed = results.get("fed", {})
    for kind in KINDS[:2]:
        if row := fed.get(kind):
            rate, share = row["clips_per_second"]["median"], row["share_of_matrix"]["median"]
            found.append((f"{kind} ours, loader included", rate, share, math.nan))
            found.append(
                (f"{kind} loader alone", row["loader_alone"]["median"], math.nan, math.nan)
            )
    if probe := results.get("probe"):
        rate = probe["clips_per_second"]["median"]
        found.append(("features", rate, math.nan, math.nan))
    return found


def main() -> int:
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    results = {part: found for part in PARTS if (found := result_of(folder / f"{part}.log"))}
    if not results:
        print("no part came to its end")
        return 1
    first = next(iter(results.values()))
    print(f"\n{first['model']}, {first['precision']}, {first['device']}, {seconds} s in all")
    print(f"{'':34}{'clips/s':>10}{'of matrix rate':>16}{'peak MB':>10}")
    for name, rate, share, peak in rows(results):
        shown = f"{share:.1%}" if share == share else ""
        memory = f"{peak:.0f}" if peak == peak else ""
        print(f"{name:34}{rate:10.1f}{shown:>16}{memory:>10}")
    for kind in KINDS:
        if ratio := results.get("steps", {}).get(kind, {}).get("ratio"):
            print(f"{kind}: ours over plain PyTorch {ratio['median']:.2f}")
    if probe := results.get("probe"):
        faster = probe["faster_than_a_pass_each_epoch"]["median"]
        print(f"probe: {faster:.1f} times faster than with a pass in each", end=" ")
        print(f"of {probe['epochs']} epochs")
    for part in PARTS:
        if part not in results:
            print(f"{part}: not measured")
        elif "skipped" in results[part]:
            print(f"{part}: {results[part]['skipped']}")
    print(json.dumps({"benchmark": "gpu", "seconds": seconds, **results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
