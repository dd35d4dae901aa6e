"""Writes docs/benchmarks-certainty.md from benchmarks/results/certainty.json.

python benchmarks/statistics/conformal_report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "certainty.json"
PAGE = ROOT / "docs" / "benchmarks-certainty.md"

TIED = """\
  RAPS adds probabilities up to the class's rank. For the last of two classes that is 1 for every sample, and a
  quantized output gives many samples one number. Without randomization all of the tied are let in. LAC, which the
  device takes first, stays within the points asked for on the same tasks.\
"""

PAGE_TEXT = """\
# Certainty, measured

Written by `python benchmarks/statistics/conformal_report.py` from
[`certainty.json`](../benchmarks/results/certainty.json). What the thresholds are:
[statistics in a bundle](bundle-statistics.md). How to use them: [certainty](how-to/certainty.md).

```sh
python benchmarks/statistics/conformal_coverage.py --corpus FOLDER --work FOLDER \\
  --out benchmarks/results/certainty.json --fresh ic_resnet8 --only {tasks}
```

Each task's samples are cut in two at random. One half is given to `edgewright compress`, which makes the ladder and its
thresholds; the other half judges them, by the device's own code. For ic_resnet8 {fresh} more test images judge.
`values` is a made task of values (Friedman's function with noise that grows with one input), as the corpus has none.

## How to read it

- **Coverage** is how often the truth's own score is within the threshold: what is promised. **Answered** is how often
  the truth is in the set that is answered, which holds the likeliest class always; it is larger where a set
  would be empty, as for a model that is right more often than asked for.
- **Chance** is the range in which 95 of 100 bundles' coverage lies when the promise is kept, for the `m` samples that
  calibrated and the `n` that judge. A threshold from 125 samples covers 2.7 points more or less than
  asked for by itself: a single bundle of that size cannot show a difference of 1.5 points, either way.
- **Cuts** is the mean coverage over {cuts} random cuts of the judging samples, one half of each calibrating, the other
  checking. Chance is averaged out of it: this decides whether it is within {points} points.
- **Abstained** is the share of answers with more than one class in the set (`abstain_over = 1`), **right** how often
  the likeliest class is, of all answers and of those not abstained from.

## All variants together

{pooled}

`as expected` counts the thresholds within their range of chance, `too low` those below it: of 95 % ranges, one in forty
falls out on that side. Variants of one task share their samples, so they fall out together.

{verdict}

## By task and variant

{rows}

{environment}
"""


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def pooled_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of all variants together."""
    lines = [
        "| score | nominal, % | thresholds | judged | coverage, % | answered, % | as expected | too low "
        "| cuts, points from nominal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["resplit_points"]
        lines.append(
            f"| {row['score']} | {100 * (1 - row['alpha']):.0f} | {row['thresholds']} | {row['n']:,} | "
            f"{percent(row['coverage'])} | {percent(row['answered'])} | {row['as_expected']} | {row['too_low']} | "
            f"{low:+.2f} to {high:+.2f} |"
        )
    return "\n".join(lines)


def row_table(rows: list[dict[str, Any]]) -> str:
    """Return the table with a line for each threshold."""
    lines = [
        "| task | variant | score | nominal | m | n | coverage (interval) | chance | cuts | answered | set size "
        "| abstained | right, all / given |",
        "|" + "---|" * 13,
    ]
    for row in rows:
        low, high = row["interval"]
        nominal = f"{100 * (1 - row['alpha']):.0f}"
        right = f"{percent(row['right'])} / {percent(row['right_when_given'])}" if "right" in row else ""
        cuts = percent(row["resplit"]["mean"]) if row["resplit"] else ""
        lines.append(
            f"| {row['task']} | {row['variant']} | {row['score']} | {nominal} | "
            f"{row['calibrated']} | {row['n']} | {percent(row['coverage'])} ({percent(low)} to {percent(high)}) | "
            f"{percent(row['expected'][0])} to {percent(row['expected'][1])} | {cuts} | "
            f"{percent(row['answered'] / row['n'])} | {row['set_size']:.2f} | {percent(row.get('abstained'))} | "
            f"{right} |"
        )
    return "\n".join(lines)


def verdict(rows: list[dict[str, Any]], points: float) -> str:
    """Return which thresholds are further from nominal than allowed once chance is averaged out, and why."""
    judged = [(100 * (row["resplit"]["mean"] - 1 + row["alpha"]), row) for row in rows if row["resplit"]]
    below = [row for away, row in judged if away < -points]
    above = [row for away, row in judged if away > points]
    few = {row["task"] for row in above if 100 / (row["n"] // 2 + 1) > points}
    tied = sorted({f"{row['task']}/{row['variant']} {row['score']}" for row in above if row["task"] not in few})
    within = len(judged) - len(below) - len(above)
    lines = [
        f"Over many cuts, {within} of {len(judged)} thresholds are within {points:g} points of nominal, "
        f"{len(below) or 'none'} below,",
        f"{len(above) or 'none'} above: their sets are too large rather than too small.",
    ]
    if few:
        lines += [
            "",
            f"- Few samples ({', '.join(sorted(few))}): m of them keep the promise in steps of 1/(m + 1) only.",
        ]
    if tied:
        lines += ["", f"- Tied scores ({', '.join(tied)}):", TIED]
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page in Markdown."""
    found = json.loads(RESULTS.read_bytes())
    rows, made = found["rows"], found["environment"]
    return PAGE_TEXT.format(
        tasks=",".join(dict.fromkeys(row["task"] for row in rows)),
        fresh=f"{found['fresh'].get('ic_resnet8', 0):,}",
        cuts=found["cuts"],
        points=f"{found['points']:g}",
        pooled=pooled_table(found["pooled"]),
        verdict=verdict(rows, found["points"]),
        rows=row_table(rows),
        environment=f"Python {made['python']}, onnxruntime {made['versions']['onnxruntime']}, {made['architecture']}.",
    )


if __name__ == "__main__":
    main()
