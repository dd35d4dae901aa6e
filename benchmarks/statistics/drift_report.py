"""Writes docs/benchmarks-drift.md and its pictures from benchmarks/results/drift.json.

python benchmarks/statistics/drift_report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.common.svg_line_chart import Curve, Panel, draw

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "drift.json"
PAGE = ROOT / "docs" / "benchmarks-drift.md"
PICTURES = ROOT / "docs" / "pictures"

PAGE_TEXT = """\
# Drift, measured

Written by `python benchmarks/statistics/drift_report.py` from [`drift.json`](../benchmarks/results/drift.json). What is
judged, and how: [decision 0012](decisions/0012-certainty-and-drift-on-the-device.md). What to do about an alarm:
[drift](how-to/drift.md).

```sh
python benchmarks/statistics/drift_detection.py --corpus FOLDER --work FOLDER --out benchmarks/results/drift.json \\
  --fresh ic_resnet8 --only {tasks}
```

Each task's samples are cut in two. One half is given to `edgewright compress`, whose bundle has the reference; windows
are made of the other half. Six histograms are judged together: mean, standard deviation, minimum and maximum of the
input, the answer's confidence, the class answered. A window alarms if any of the six does. All counts are by the
agent's own code.

## Windows without drift

Windows of {windows} that alarm, by samples in the window. Reference and window are drawn anew each time, with
replacement, from one task's samples, so that nothing has changed and any size can be had. `reference` is the number of
samples in the reference, which is the bundle's own number. The target of the project is at most 2 %.

{null}

The bundle's own reference, which is one draw and not a new one each time, against windows that are drawn without
replacement from samples that `compress` never saw, through one drift watch for all windows. `slow` are alarms of the
mean confidence that is followed from window to window. A size is left out where four windows do not fit into the
samples.

{shipped}

## What is seen

The share of {looks} windows that alarm, over the size of the change. Samples that `compress` never saw are changed; the
reference is the bundle's.

- Mean shift and noise: added to every number of the input, in standard deviations of all numbers of the task's inputs,
  then cut to what the sensor's type can hold.
- Dead sensor: one axis or color reads zero, in this share of the window's samples.
- Class mix: this share of the window's samples is of one class, the most frequent one.

A shift shows early where inputs reach the end of the sensor's range, as pictures with a black pixel do: not one of them
has a minimum of zero any more. A single dead axis of six changes little of the whole tensor's numbers.

{curves}

The smallest change of those tried that at least nine in ten windows show (a dash: none):

{smallest}

{environment}
"""

TITLES = {
    "mean shift": "added, in standard deviations",
    "noise": "added, in standard deviations",
    "dead sensor": "share of samples",
    "class mix": "share of samples",
}
MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEN = 0.9


def by_size(rows: list[dict[str, Any]], more: str) -> str:
    """Return a table with a line for each task and a column for each window size."""
    sizes = sorted({row["size"] for row in rows})
    lines = [
        f"| task | {more} | {' | '.join(map(str, sizes))} |" + (" slow |" if more == "samples" else ""),
        "|" + "---|" * (len(sizes) + 2 + (more == "samples")),
    ]
    for task in sorted({row["task"] for row in rows}):
        these = {row["size"]: row for row in rows if row["task"] == task}
        first = next(iter(these.values()))
        cells = [share(these[size]["alarms"], these[size]["windows"]) if size in these else "" for size in sizes]
        slow = f" {sum(row['slow'] for row in these.values())} |" if more == "samples" else ""
        lines.append(
            f"| {task} | {first['reference' if more == 'reference' else 'pool']} | {' | '.join(cells)} |{slow}"
        )
    return "\n".join(lines)


def share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %"


def points(rows: list[dict[str, Any]], task: str, kind: str, size: int) -> list[tuple[float, float]]:
    """Return one curve."""
    chosen = [row for row in rows if (row["task"], row["kind"], row["size"]) == (task, kind, size)]
    return [(row["magnitude"], row["alarms"] / row["windows"]) for row in chosen]


def picture(rows: list[dict[str, Any]], task: str, sizes: list[int]) -> str:
    """Return one task's four panels as SVG."""
    panels = [
        Panel(
            title=kind,
            x_title=title,
            marks=MARKS,
            curves=[Curve(name=f"windows of {size}", points=points(rows, task, kind, size)) for size in sizes],
        )
        for kind, title in TITLES.items()
    ]
    return draw(panels, label=f"Share of windows that alarm over the size of a change, {task}")


def smallest(rows: list[dict[str, Any]], sizes: list[int]) -> str:
    """Return a table with the smallest change that nearly all windows show."""
    heads = [f"{kind}, {size}" for kind in TITLES for size in sizes]
    lines = [f"| task | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    for task in sorted({row["task"] for row in rows}):
        cells = []
        for kind in TITLES:
            for size in sizes:
                enough = [x for x, y in points(rows, task, kind, size) if y >= SEEN]
                cells.append(f"{min(enough):g}" if enough else "-")
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    found = json.loads(RESULTS.read_bytes())
    PICTURES.mkdir(exist_ok=True)
    for name, drawing in pictures(found).items():
        (PICTURES / name).write_text(drawing, encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")


def pictures(found: dict[str, Any]) -> dict[str, str]:
    """Return the drawings by file name, as SVG."""
    rows = found["detection"]
    sizes = sorted({row["size"] for row in rows})
    return {f"drift-{task}.svg": picture(rows, task, sizes) for task in sorted({row["task"] for row in rows})}


def page(found: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    rows, made = found["detection"], found["environment"]
    sizes = sorted({row["size"] for row in rows})
    shown = [
        f"**{task}**\n\n![Share of windows that alarm, {task}](pictures/drift-{task}.svg)"
        for task in sorted({row["task"] for row in rows})
    ]
    return PAGE_TEXT.format(
        windows=f"{found['null'][0]['windows']:,}",
        looks=rows[0]["windows"],
        tasks=",".join(dict.fromkeys(row["task"] for row in found["null"])),
        null=by_size(found["null"], "reference"),
        shipped=by_size(found["shipped"], "samples"),
        curves="\n\n".join(shown),
        smallest=smallest(rows, sizes),
        environment=f"Python {made['python']}, onnxruntime {made['versions']['onnxruntime']}, {made['architecture']}.",
    )


if __name__ == "__main__":
    main()
