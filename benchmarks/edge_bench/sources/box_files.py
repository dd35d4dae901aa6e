"""True boxes out of COCO's and YOLO's files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_bench.metrics.table import Array
from edge_bench.task_format import TaskFile
from edge_contracts.answering import Nms
from edge_contracts.errors import BundleError

Size = tuple[int, int]
Box = tuple[int, float, float, float, float]


def coco_boxes(path: Path) -> dict[str, list[Box]]:
    """Return the boxes of each image of a COCO file: class (its place among the sorted numbers of categories), and
    x1, y1, x2, y2 in its pixels. Crowds are left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = {number: index for index, number in enumerate(sorted(one["id"] for one in content["categories"]))}
        found: dict[str, list[Box]] = {str(one["file_name"]): [] for one in content["images"]}
        twice = len(content["images"]) - len(found)
        names = {one["id"]: str(one["file_name"]) for one in content["images"]}
        for one in content["annotations"]:
            if not one.get("iscrowd"):
                x, y, width, height = map(float, one["bbox"])
                found[names[one["image_id"]]].append((kinds[one["category_id"]], x, y, x + width, y + height))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"is no COCO file of images, annotations and categories: {type(error).__name__}: {str(error)[:200]}"
        raise BundleError(what, subject=path.name) from error
    if not found or twice:
        raise BundleError("names an image twice" if twice else "names no image", subject=path.name)
    return found


def yolo_boxes(folder: Path, names: Sequence[str]) -> list[list[Box]]:
    if not any((folder / f"{Path(name).stem}.txt").is_file() for name in names):
        text = f"has no file for any image, such as {Path(names[0]).stem}.txt"
        raise BundleError(text, subject=folder.name, hint="data.yolo is the folder with YOLO's text files")
    return [_yolo(folder, name) for name in names]


def _yolo(folder: Path, image: str) -> list[Box]:
    """Return the boxes of YOLO's text file beside an image's name: class and x1, y1, x2, y2 from 0 to 1."""
    path = folder / f"{Path(image).stem}.txt"
    return [_yolo_line(line, f"{path.name} line {number}") for number, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        return  # YOLO writes no file for an image without boxes
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.strip():
            yield number, line


def _yolo_line(line: str, what: str) -> Box:
    try:
        kind, x, y, width, height = line.split()[:5]
        half = float(width) / 2, float(height) / 2
        return int(kind), float(x) - half[0], float(y) - half[1], float(x) + half[0], float(y) + half[1]
    except ValueError as error:
        raise BundleError("is no class, center x, center y, width, height", subject=what) from error


def unit_of(file: TaskFile, image: Size) -> Size:
    """Return what 1 is in the unit of the boxes that the answer steps make: their image's pixels, or 1."""
    sizes = [step.image for step in file.answer if isinstance(step, Nms) and step.image is not None]
    resized = file.input is not None and bool(file.input.steps)
    return (image if resized else sizes[0]) if sizes else (1, 1)


def box_rows(per_image: Sequence[Sequence[Box]], sizes: Sequence[Size], unit: Size, *, relative: bool) -> Array:
    """Return boxes as rows of sample, class, x1, y1, x2, y2 in the unit."""
    rows = []
    for sample, (boxes, (height, width)) in enumerate(zip(per_image, sizes, strict=True)):
        across, down = (unit[1], unit[0]) if relative else (unit[1] / width, unit[0] / height)
        rows += [(sample, kind, x1 * across, y1 * down, x2 * across, y2 * down) for kind, x1, y1, x2, y2 in boxes]
    return np.array(rows, np.float64).reshape(-1, 6)
