"""Do a bundle's conformal thresholds cover what they promise? Counted on samples that had no part in the bundle.

    python benchmarks/statistics/conformal_coverage.py --corpus FOLDER --work FOLDER --fresh ic_resnet8 --out FILE.json

For every variant of every task's ladder, by the device's own code: how often the truth is in the set (or within the
width), with the interval that chance explains; how large the sets are; how many answers are abstained from when a set
may hold one class only, and how good the others are. A threshold is itself made of a sample: with n calibration
samples its true coverage varies from bundle to bundle (Vovk 2012, "Conditional validity of inductive conformal
predictors": a beta distribution), so each figure is also held against that, and `resplit` makes the threshold anew
from many cuts of the held-out samples. Bundles are made by `held_out.py`; one task of values is made here.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.friedman_task import write_value_task
from benchmarks.statistics.held_out import HeldOut, prepare
from edge_agent.inference.conformal import Predictor, lac, raps
from edge_agent.processing.activations import softmax
from edge_bench.environment import environment
from edge_compression.bundle.conformal import Labeled, classification, regression
from edge_contracts.reference import ConformalThreshold

Array = NDArray[Any]
Floats = NDArray[np.float64]

NOMINAL_POINTS = 1.5
"""Points from the nominal coverage that the project allows."""

CUTS = 500
"""Cuts of the held-out samples into halves that calibrate and check."""

RECIPES = ("float", "int8-pc-minmax", "int8-pc-bias-rr", "int8-weights", "int8-dynamic")
"""What is tried: ladders of float and int8 variants that are made in a minute."""

RECIPES_FOLDER = Path(__file__).parents[2] / "compression" / "recipes"


def judge(held: HeldOut) -> Iterator[dict[str, Any]]:
    """Yield one row for each threshold of each variant of the ladder."""
    output = held.bundle.manifest.outputs[0]
    for variant in held.bundle.manifest.variants:
        answers = held.answers(variant, held.x)
        again = resplit(answers, held.y, output.kind)
        for threshold in variant.conformal:
            row = {"task": held.task, "variant": variant.id, "score": threshold.score, "alpha": threshold.alpha}
            found = Predictor(threshold, output).predict({output.name: answers})
            if found.width is None:
                rows = answers.reshape(len(answers), -1).astype(np.float64)
                row |= sets(rows, held.y, found.sets)
                row["covered"] = by_threshold(softmax(rows) if output.kind == "logits" else rows, held.y, threshold)
            else:
                row |= values(answers, held.y, found.width)
            again_key = (threshold.score, threshold.alpha)
            yield row | chance(row["covered"], row["n"], threshold) | {"resplit": again.get(again_key)}


def sets(answers: Array, y: Array, found: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """Return how often the truth is in the set that is answered, how large sets are, and what abstaining gives."""
    inside = np.array([int(truth) in one for truth, one in zip(y.ravel(), found, strict=True)])
    sizes = np.array([len(one) for one in found])
    right = answers.reshape(len(y), -1).argmax(axis=1) == y.ravel()
    given = sizes == 1
    return {
        "n": len(y),
        "answered": int(inside.sum()),
        "sizes": np.bincount(sizes).tolist(),
        "set_size": float(sizes.mean()),
        "abstained": float(1.0 - given.mean()),
        "right": float(right.mean()),
        "right_when_given": float(right[given].mean()) if given.any() else None,
    }


def values(answers: Array, y: Array, width: float) -> dict[str, Any]:
    """Return how often the truth is within the width of all of a sample's values."""
    error = np.abs(answers.astype(np.float64).reshape(len(y), -1) - y.reshape(len(y), -1)).max(axis=1)
    inside = int((error <= width).sum())
    return {"n": len(y), "covered": inside, "answered": inside, "set_size": 2.0 * width}


def by_threshold(probabilities: Floats, y: Array, threshold: ConformalThreshold) -> int:
    """Return how often the truth's own score is within the threshold. This is what the promise is about: a set that is
    answered holds the likeliest class whatever its score, which can only add to the coverage."""
    if threshold.score == "lac":
        scores = lac(probabilities)
    else:
        scores = raps(probabilities, penalty=threshold.penalty, free_ranks=threshold.free_ranks)
    return int((scores[np.arange(len(y)), y.ravel()] <= threshold.tau).sum())


def chance(covered: int, n: int, threshold: ConformalThreshold) -> dict[str, Any]:
    """Return the coverage with its Clopper-Pearson interval, and the range in which it lies in 95 of 100 cases when
    the promise is kept: binomial for these `n`, over a coverage that the calibration samples left to chance."""
    m = threshold.samples
    rank = math.ceil((m + 1) * (1.0 - threshold.alpha))
    low, high = beta_binomial_range(n, rank, m + 1 - rank)
    return {
        "calibrated": m,
        "coverage": covered / n,
        "interval": clopper_pearson(covered, n),
        "expected": [low / n, high / n],
        "as_expected": low <= covered <= high,
        "too_low": covered < low,
    }


def beta_binomial_range(n: int, a: int, b: int) -> tuple[int, int]:
    """Return the central 95 % of a beta-binomial count."""
    k = np.arange(n + 1)
    lgamma = np.vectorize(math.lgamma)
    logs = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + lgamma(k + a) + lgamma(n - k + b) - lgamma(n + a + b)
    cumulated = np.cumsum(np.exp(logs + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)))
    return int(np.searchsorted(cumulated, 0.025)), int(np.searchsorted(cumulated, 0.975))


def clopper_pearson(count: int, n: int) -> list[float]:
    """Return the exact 95 % interval of a share, by bisection of the binomial distribution."""
    k = np.arange(n + 1)
    lgamma = np.vectorize(math.lgamma)
    ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    def at_least(p: float) -> float:
        return float(np.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))[count:].sum())

    def at_most(p: float) -> float:
        return float(np.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))[: count + 1].sum())

    low = 0.0 if count == 0 else _bisect(lambda p: at_least(p) < 0.025)
    high = 1.0 if count == n else _bisect(lambda p: at_most(p) >= 0.025)
    return [low, high]


def _bisect(below: Any) -> float:
    low, high = 1e-12, 1.0 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def resplit(answers: Array, y: Array, kind: str) -> dict[tuple[str, float], dict[str, float]]:
    """Return, for each score and alpha, mean and spread of the coverage over many cuts of the samples in halves, one of
    which the toolchain makes a threshold of and the other checks it."""
    rows = answers.reshape(len(y), -1).astype(np.float64)
    rows = softmax(rows) if kind == "logits" else rows
    rng = np.random.default_rng(1)
    found: dict[tuple[str, float], list[float]] = {}
    for _ in range(CUTS):
        marks = np.zeros(len(y), dtype=np.bool_)
        marks[rng.permutation(len(y))[: len(y) // 2]] = True
        data = Labeled(answers=rows, y=y, calibrate=marks)
        for threshold in (regression if kind == "values" else classification)(data, "0" * 64):
            assert threshold.coverage is not None
            found.setdefault((threshold.score, threshold.alpha), []).append(threshold.coverage)
    return {key: {"mean": float(np.mean(every)), "deviation": float(np.std(every))} for key, every in found.items()}


def pooled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each score and alpha, the coverage over all variants and tasks together."""
    found = []
    for score, alpha in sorted({(row["score"], row["alpha"]) for row in rows}):
        these = [row for row in rows if (row["score"], row["alpha"]) == (score, alpha)]
        n = sum(row["n"] for row in these)
        means = [100.0 * (row["resplit"]["mean"] - 1.0 + alpha) for row in these if row["resplit"]]
        found.append(
            {
                "score": score,
                "alpha": alpha,
                "thresholds": len(these),
                "n": n,
                "coverage": sum(row["covered"] for row in these) / n,
                "answered": sum(row["answered"] for row in these) / n,
                "as_expected": sum(row["as_expected"] for row in these),
                "too_low": sum(row["too_low"] for row in these),
                "within": sum(abs(row["coverage"] - 1.0 + alpha) * 100.0 <= NOMINAL_POINTS for row in these),
                "resplit_points": [min(means), max(means)],
            }
        )
    return found


def cuts(row: dict[str, Any]) -> float:
    """Return the mean coverage over the cuts in percent, NaN where there were too few samples."""
    return 100.0 * row["resplit"]["mean"] if row["resplit"] else math.nan


def tasks(arguments: argparse.Namespace) -> Iterator[HeldOut]:
    """Yield every task, the smallest first, and one of values."""
    recipes = arguments.work / "recipes"
    recipes.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        shutil.copy(RECIPES_FOLDER / f"{name}.toml", recipes)
    more = ["--recipes", str(recipes), "--variations", "0", "--budget", "6m", "--max-drop", "3", "--accept-undecided"]
    files = sorted(arguments.corpus.glob("*.toml"), key=lambda path: path.with_suffix(".npz").stat().st_size)
    only, fresh = set(filter(None, arguments.only.split(","))), set(arguments.fresh.split(","))
    for task in [*files, write_value_task(arguments.work / "values-task")]:
        if not only or task.stem in only:
            yield prepare(task, arguments.work, more=more, fresh=task.stem in fresh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--work", type=Path, required=True, help="keeps the bundles; those in it are taken as they are")
    parser.add_argument("--only", default="", help="comma-separated task names")
    parser.add_argument("--fresh", default="", help="tasks whose training file the model was not trained on")
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    fresh: dict[str, int] = {}
    for held in tasks(arguments):
        if held.fresh:
            fresh[held.task] = held.fresh
        for row in judge(held):
            rows.append(row)
            low, high = (100.0 * bound for bound in row["expected"])
            sys.stdout.write(
                f"{row['task']:28} {row['variant']:18} {row['score']:18} {100 * (1 - row['alpha']):.0f} %: "
                f"{100 * row['coverage']:6.2f} of n={row['n']} (chance {low:.1f} to {high:.1f}), "
                f"size {row['set_size']:.2f}, cuts {cuts(row):.2f}\n"
            )
            sys.stdout.flush()
    if arguments.out:
        document = {
            "environment": msgspec.to_builtins(environment()),
            "cuts": CUTS,
            "points": NOMINAL_POINTS,
            "fresh": fresh,
            "rows": rows,
            "pooled": pooled(rows),
        }
        arguments.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
