"""Arrays out of folders and tables: images with classes, boxes or masks, sounds, columns of a CSV or Parquet file."""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_bench.metrics.table import Array
from edge_bench.task_format import DataSection, TaskFile
from edge_contracts.answering import Nms
from edge_contracts.errors import BundleError, ContractError, MissingExtraError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MAX_FILES = 200_000
"""Files of one folder: beyond it the arrays would not fit the memory of a build machine anyway."""

TEXTS = ("cer", "wer")
Size = tuple[int, int]


def image_arrays(task: Path, folder: Path, section: DataSection, file: TaskFile) -> Mapping[str, Array]:
    """Return `x` [N, height, width, channels] in uint8, or channels first, and `y`: classes, boxes or masks."""
    kinds = [name for name in ("labels", "coco", "yolo", "masks") if getattr(section, name) is not None]
    if len(kinds) > 1:
        what = f"{' and '.join(kinds)}: one of them says what is right"
        raise ContractError(what, subject=f"{task.name} data.{kinds[1]}")
    kind = kinds[0] if kinds else None
    where = task.parent / str(getattr(section, kind)) if kind is not None else folder
    if kind is not None and not where.exists():
        raise ContractError(f"no such file or folder: {where}", subject=f"{task.name} data.{kind}")
    listed = _labels(where) if kind == "labels" else {}
    coco = _coco(where) if kind == "coco" else {}
    names = [*listed] or [*coco] or _files(folder, IMAGES)
    read = [_image(folder / name, section, f"{task.name} data") for name in names]
    x = _stacked([image for image, _ in read], names, f"{folder.name}", "data.size = [height, width] brings all to one")
    made: dict[str, Array] = {"x": x if section.layout == "nhwc" else np.ascontiguousarray(np.moveaxis(x, -1, 1))}
    before = [size for _, size in read]
    if kind == "labels":
        made["y"] = _right([*listed.values()], file, where.name)
    elif kind == "masks":
        size: Size = (x.shape[1], x.shape[2])
        made["y"] = np.stack([_mask(where / f"{Path(name).stem}.png", size) for name in names])
    elif kind in ("coco", "yolo"):
        per_image = [coco[name] for name in names] if kind == "coco" else [_yolo(where, name) for name in names]
        made["y"] = _rows(per_image, before, _unit(file, (x.shape[1], x.shape[2])), relative=kind == "yolo")
    return made


def wav_arrays(task: Path, folder: Path, section: DataSection, file: TaskFile) -> Mapping[str, Array]:
    """Return `x` [N, length] in int16 of sounds (PCM), channels averaged, and `y` of the CSV of labels."""
    where = task.parent / section.labels if section.labels is not None else None
    if where is not None and not where.is_file():
        raise ContractError(f"no such file: {where}", subject=f"{task.name} data.labels")
    listed = {} if where is None else _labels(where)
    names = [*listed] or _files(folder, (".wav",))
    sounds = [_sound(folder / name) for name in names]
    if section.length is not None:
        sounds = [np.pad(one[: section.length], (0, max(0, section.length - one.size))) for one in sounds]
    made = {"x": _stacked(sounds, names, folder.name, "data.length cuts or fills up all to one")}
    if where is not None:
        made["y"] = _right([*listed.values()], file, where.name)
    return made


def table_arrays(task: Path, where: Path, section: DataSection, file: TaskFile) -> Mapping[str, Array]:
    """Return `x` [N, columns] in float32, each column by its name as well, and `y` of the target column. A value that
    is missing is NaN; columns that are no numbers are fed by name only, as the numbers of their sorted values."""
    columns = _parquet(where) if where.suffix.lower() in (".parquet", ".pq") else _csv(where)
    for name in (*section.columns, *([section.target] if section.target else [])):
        if name not in columns:
            known = ", ".join(columns)
            raise ContractError(f"{where.name} has no column {name!r}; it has {known}", subject=f"{task.name} data")
    target = section.target
    chosen = section.columns or tuple(name for name in columns if name != target)
    made: dict[str, Array] = {}
    fed = []
    for name in chosen:
        numbers = _numbers(columns[name])
        if numbers is None:
            what = f"column {name!r} holds {columns[name][0]!r}, no numbers; data.columns chooses what is fed"
            raise BundleError(what, subject=where.name)
        fed.append(numbers)
        made[name] = numbers.astype(np.float32)
    made["x"] = np.stack(fed, axis=1).astype(np.float32)
    if target is not None:
        if any(value == "" for value in columns[target]):
            raise BundleError(f"the target {target!r} is missing in a row", subject=where.name)
        made["y"] = _right(columns[target], file, where.name)
    return made


def _files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    names = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in suffixes)
    if not names or len(names) > MAX_FILES:
        what = f"{len(names)} files of {', '.join(suffixes)}, 1 to {MAX_FILES} are read"
        raise BundleError(what, subject=str(folder.name))
    return names


def _labels(path: Path) -> dict[str, str]:
    """Return what a CSV with columns file and label says of each file."""
    rows = _csv(path)
    if not {"file", "label"} <= rows.keys():
        raise BundleError(f"has columns {', '.join(rows)}; file and label are needed", subject=path.name)
    found = dict(zip(rows["file"], rows["label"], strict=True))
    if len(found) < len(rows["file"]):
        raise BundleError("names a file twice", subject=path.name)
    return found


def _csv(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BundleError(f"cannot be read: {error}", subject=path.name) from error
    if len(rows) < 2:
        raise BundleError("has no row below the names of its columns", subject=path.name)
    names = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise BundleError(f"line {number} has {len(row)} fields, the first {len(names)}", subject=path.name)
    if len(set(names)) < len(names):
        raise BundleError("names a column twice", subject=path.name)
    return {name: [row[index].strip() for row in rows[1:]] for index, name in enumerate(names)}


def _parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("parquet", "pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:  # its reader raises several of its own
        raise BundleError(f"cannot be read: {str(error)[:300]}", subject=path.name) from error
    return {
        name: ["" if value is None else _text(value) for value in table.column(name).to_pylist()]
        for name in table.column_names
    }


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _numbers(values: Sequence[str]) -> Array | None:
    """Return a column as numbers, NaN where there is none; None where there is something else."""
    try:
        return np.array([float(value) if value.lower() not in _MISSING else np.nan for value in values])
    except ValueError:
        return None


_MISSING = ("", "na", "nan", "null", "none", "?")


def _right(values: Sequence[str], file: TaskFile, what: str) -> Array:
    """Return labels as class numbers, numbers or texts: as the task's names of classes and its metrics ask for."""
    if any(one.metric in TEXTS for one in file.outputs):
        return np.array(values, np.str_)
    if file.labels:
        known = {name: index for index, name in enumerate(file.labels)}
        if set(values) <= known.keys():
            return np.array([known[value] for value in values], np.int64)
    numbers = _numbers(values)
    if numbers is None:
        kinds = {name: index for index, name in enumerate(sorted(set(values)))}
        if file.labels:
            unknown = sorted(set(values) - set(file.labels))[0]
            raise BundleError(f"{unknown[:80]!r} is none of the task's labels", subject=what)
        return np.array([kinds[value] for value in values], np.int64)
    if np.isnan(numbers).any():
        raise BundleError("a label is missing", subject=what)
    return numbers.astype(np.int64) if (numbers == np.rint(numbers)).all() else numbers


def _stacked(samples: Sequence[Array], names: Sequence[str], what: str, hint: str) -> Array:
    shapes = {one.shape: name for one, name in zip(samples, names, strict=True)}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise BundleError(f"{first} is {list(one)}, {second} {list(other)}", subject=what, hint=hint)
    return np.stack(samples)


def _image(path: Path, section: DataSection, what: str) -> tuple[Array, Size]:
    """Return an image as [height, width, channels] in uint8, and its size before it was brought to one."""
    with _opened(path, what) as image:
        before = (image.height, image.width)
        converted = image.convert("RGB" if section.color == "rgb" else "L")
        if section.size is not None and before != section.size:
            converted = converted.resize((section.size[1], section.size[0]))
        array = np.asarray(converted, np.uint8)
    return (array if array.ndim == 3 else array[..., None]), before


def _mask(path: Path, size: Size) -> Array:
    with _opened(path, path.parent.name) as image:
        if image.mode not in ("L", "P", "1", "I", "I;16"):
            raise BundleError(f"is {image.mode}; a mask has one class number a pixel", subject=path.name)
        return np.asarray(
            image if (image.height, image.width) == size else image.resize((size[1], size[0]), 0), np.int64
        )


def _opened(path: Path, what: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("images", "pillow") from error
    try:
        image = Image.open(path)
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BundleError(f"cannot be read as an image: {str(error)[:200]}", subject=f"{what} {path.name}") from error
    return image


def _sound(path: Path) -> Array:
    """Return a PCM sound in int16, channels averaged."""
    try:
        with wave.open(str(path)) as file:
            width, channels, count = file.getsampwidth(), file.getnchannels(), file.getnframes()
            data = file.readframes(count)
    except (OSError, EOFError, wave.Error) as error:
        raise BundleError(f"cannot be read as PCM sound: {error}", subject=path.name) from error
    if width == 1:
        values = (np.frombuffer(data, np.uint8).astype(np.float64) - 128) * 256
    else:
        raw = np.frombuffer(data, np.uint8).reshape(-1, width)[:, -2:]
        values = raw.copy().view("<i2").reshape(-1).astype(np.float64)
    mixed: Array = values.reshape(-1, channels).mean(axis=1)
    return np.rint(mixed).astype(np.int16)


Box = tuple[int, float, float, float, float]


def _coco(path: Path) -> dict[str, list[Box]]:
    """Return the boxes of each image of a COCO file: class (its place among the sorted numbers of categories), and
    x1, y1, x2, y2 in its pixels. Crowds are left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = {number: index for index, number in enumerate(sorted(one["id"] for one in content["categories"]))}
        found: dict[str, list[Box]] = {one["file_name"]: [] for one in content["images"]}
        names = {one["id"]: one["file_name"] for one in content["images"]}
        for one in content["annotations"]:
            if not one.get("iscrowd"):
                x, y, width, height = map(float, one["bbox"])
                found[names[one["image_id"]]].append((kinds[one["category_id"]], x, y, x + width, y + height))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"is no COCO file of images, annotations and categories: {type(error).__name__}: {str(error)[:200]}"
        raise BundleError(what, subject=path.name) from error
    return found


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


def _unit(file: TaskFile, image: Size) -> Size:
    """Return what 1 is in the unit of the boxes that the answer steps make: their image's pixels, or 1."""
    sizes = [step.image for step in file.answer if isinstance(step, Nms) and step.image is not None]
    resized = file.input is not None and bool(file.input.steps)
    return (image if resized else sizes[0]) if sizes else (1, 1)


def _rows(per_image: Sequence[Sequence[Box]], sizes: Sequence[Size], unit: Size, *, relative: bool) -> Array:
    """Return boxes as rows of sample, class, x1, y1, x2, y2 in the unit."""
    rows = []
    for sample, (boxes, (height, width)) in enumerate(zip(per_image, sizes, strict=True)):
        across, down = (unit[1], unit[0]) if relative else (unit[1] / width, unit[0] / height)
        rows += [(sample, kind, x1 * across, y1 * down, x2 * across, y2 * down) for kind, x1, y1, x2, y2 in boxes]
    return np.array(rows, np.float64).reshape(-1, 6)
