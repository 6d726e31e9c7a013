"""The table that gpu.sh ends with, and all its results as one JSON line.

python benchmarks/gpu_table.py LOGS SECONDS
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

PARTS = ("steps", "fed", "probe")
KINDS = ("mae", "align", "finetune")
AIMS = {"mae": 0.4, "align": 0.5}  # of the matrix rate of an H200 in bf16, loader included


class Row(NamedTuple):
    name: str
    rate: float  # clips a second
    teraflops: float = math.nan
    share: float = math.nan  # of the matrix product's rate
    peak: float = math.nan  # MB


def result_of(log: Path) -> dict[str, Any] | None:
    """The last result that a part printed; if it was cut short, `unfinished` says of what."""
    lines = log.read_text().splitlines() if log.exists() else []
    results = [line for line in lines if line.startswith('{"benchmark"')]
    if not results:
        return None
    found: dict[str, Any] = json.loads(results[-1])
    return found


def rows(results: dict[str, dict[str, Any]]) -> list[Row]:
    found = []
    for kind in KINDS:
        for whose in ("ours", "plain"):
            if row := results.get("steps", {}).get(kind, {}).get(whose):
                found.append(row_of(f"{kind} {whose}", row))
    for kind in AIMS:
        if row := results.get("fed", {}).get(kind):
            found.append(row_of(f"{kind} ours compiled, loader included", row))
            found.append(Row(f"{kind} loader alone", row["loader_alone"]["median"]))
            found.append(Row(f"{kind} ours compiled, no loader", row["steps_alone"]["median"]))
    if probe := results.get("probe"):
        found.append(Row("features", probe["clips_per_second"]["median"]))
    return found


def row_of(name: str, measured: dict[str, Any]) -> Row:
    return Row(
        name,
        rate=measured["clips_per_second"]["median"],
        teraflops=measured["teraflops"]["median"],
        share=measured["share_of_matrix"]["median"],
        peak=measured.get("peak_mb", math.nan),
    )


def verdicts(results: dict[str, dict[str, Any]]) -> list[str]:
    """Whether each aim is met."""
    told = []
    for kind, aim in AIMS.items():
        found = results.get("fed", {}).get(kind)
        if found is None:
            told.append(f"{kind}, loader included: not measured; the aim is {aim:.0%}")
            continue
        share = found["share_of_matrix"]["median"]
        verdict = "is met" if share >= aim else "is missed"
        told.append(
            f"{kind}, loader included: {share:.1%} of the matrix rate; the aim, {aim:.0%} "
            f"in bf16 on an H200, {verdict}"
        )
    return told


def matrix_rates(results: dict[str, dict[str, Any]]) -> str:
    """The least and the most that a matrix product reached in any part, TFLOP/s."""
    rates = []
    for result in results.values():
        for kind in KINDS:
            found = result.get(kind, {}).get("matrix_teraflops")
            if found is not None:
                rates.append(found["median"] if isinstance(found, dict) else found)
    return f"{min(rates):.4g} to {max(rates):.4g} TFLOP/s" if rates else "not measured"


def main() -> int:
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    results = {part: found for part in PARTS if (found := result_of(folder / f"{part}.log"))}
    if not results:
        print("nothing was measured")
        return 1
    first = next(iter(results.values()))
    print(f"\n{first['model']}, {first['precision']}, {first['device']}, {seconds} s in all")
    print(f"a large matrix product: {matrix_rates(results)}")
    print(f"{'':40}{'clips/s':>10}{'TFLOP/s':>10}{'of matrix rate':>16}{'peak MB':>10}")
    for row in rows(results):
        shown = (
            f"{value:{form}}" if value == value else ""
            for value, form in ((row.teraflops, ".4g"), (row.share, ".1%"), (row.peak, ".0f"))
        )
        speed, share, memory = shown
        print(f"{row.name:40}{row.rate:10.1f}{speed:>10}{share:>16}{memory:>10}")
    for line in verdicts(results):
        print(line)
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
        elif unfinished := results[part].get("unfinished"):
            print(f"{part}: cut short, {', '.join(unfinished)} not measured")
    print(json.dumps({"benchmark": "gpu", "seconds": seconds, **results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
