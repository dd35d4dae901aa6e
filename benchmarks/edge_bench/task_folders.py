"""Arrays out of folders: images with classes, boxes or masks, and sounds. Tables and boxes are in `sources`."""

from __future__ import annotations

import struct
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_bench.metrics.table import Array
from edge_bench.sources.box_files import box_rows, coco_boxes, unit_of, yolo_boxes
from edge_bench.sources.tables import listed_labels, right
from edge_bench.task_format import DataSection, TaskFile
from edge_contracts.errors import BundleError, ContractError, MissingExtraError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MAX_FILES = 200_000
"""Files of one folder: beyond it the arrays would not fit the memory of a build machine anyway."""

RELATIVE = "paths in a task are relative to the task file"
Size = tuple[int, int]


def image_arrays(task: Path, folder: Path, section: DataSection, file: TaskFile) -> Mapping[str, Array]:
    """Return `x` [N, height, width, channels] in uint8, or channels first, and `y`: classes, boxes or masks."""
    kinds = [name for name in ("labels", "coco", "yolo", "masks") if getattr(section, name) is not None]
    if len(kinds) > 1:
        what = f"{' and '.join(kinds)}: one of them says what is right"
        raise ContractError(what, subject=f"{task.name} data.{kinds[1]}")
    kind = kinds[0] if kinds else None
    where = task.parent / str(getattr(section, kind)) if kind is not None else folder
    if kind is not None and not (where.is_file() if kind in ("labels", "coco") else where.is_dir()):
        thing = "file" if kind in ("labels", "coco") else "folder"
        raise ContractError(f"no such {thing}: {where}", subject=f"{task.name} data.{kind}", hint=RELATIVE)
    listed = listed_labels(where) if kind == "labels" else {}
    coco = coco_boxes(where) if kind == "coco" else {}
    names = [*listed] or [*coco] or _files(folder, IMAGES)
    _check_stems(kind, names, where.name)
    read = [_image(_inside(folder, name, where.name), section, f"{task.name} data") for name in names]
    x = _stacked([image for image, _ in read], names, f"{folder.name}", "data.size = [height, width] brings all to one")
    made: dict[str, Array] = {"x": x if section.layout == "nhwc" else np.ascontiguousarray(np.moveaxis(x, -1, 1))}
    before = [size for _, size in read]
    if kind == "labels":
        made["y"] = right([*listed.values()], file, where.name)
    elif kind == "masks":
        size: Size = (x.shape[1], x.shape[2])
        made["y"] = np.stack([_mask(where / f"{Path(name).stem}.png", size) for name in names])
    elif kind in ("coco", "yolo"):
        per_image = [coco[name] for name in names] if kind == "coco" else yolo_boxes(where, names)
        made["y"] = box_rows(per_image, before, unit_of(file, (x.shape[1], x.shape[2])), relative=kind == "yolo")
    return made


def wav_arrays(task: Path, folder: Path, section: DataSection, file: TaskFile) -> Mapping[str, Array]:
    """Return `x` [N, length] in int16 of sounds (PCM), channels averaged, and `y` of the CSV of labels."""
    where = task.parent / section.labels if section.labels is not None else None
    if where is not None and not where.is_file():
        raise ContractError(f"no such file: {where}", subject=f"{task.name} data.labels", hint=RELATIVE)
    listed = {} if where is None else listed_labels(where)
    names = [*listed] or _files(folder, (".wav",))
    listing = folder.name if where is None else where.name
    read = [_sound(_inside(folder, name, listing)) for name in names]
    _check_rates([rate for _, rate in read], names, folder.name)
    sounds = [one for one, _ in read]
    if section.length is not None:
        sounds = [np.pad(one[: section.length], (0, max(0, section.length - one.size))) for one in sounds]
    made = {"x": _stacked(sounds, names, folder.name, "data.length cuts or fills up all to one")}
    if where is not None:
        made["y"] = right([*listed.values()], file, where.name)
    return made


def _inside(folder: Path, name: str, listing: str) -> Path:
    """Return the path of a file that a listing names. Raises BundleError where that is outside the folder: listings
    are other people's, and what they name ends in a bundle."""
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{name[:80]!r} is not in the folder {folder.name}", subject=listing)
    return path


def _check_stems(kind: str | None, names: Sequence[str], what: str) -> None:
    """Boxes and masks are found by an image's name without its ending, so two images may not share it."""
    if kind not in ("yolo", "masks"):
        return
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(Path(name).stem, name)
        if other != name:
            raise BundleError(f"{other} and {name} would both be told by {Path(name).stem}", subject=what)


def _check_rates(rates: Sequence[int], names: Sequence[str], what: str) -> None:
    for rate, name in zip(rates, names, strict=True):
        if rate != rates[0]:
            text = f"{names[0]} has {rates[0]} numbers a second, {name} {rate}"
            raise BundleError(text, subject=what, hint="bring all sounds to one rate")


def _files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    names = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in suffixes)
    if not names or len(names) > MAX_FILES:
        what = f"{len(names)} files of {', '.join(suffixes)}, 1 to {MAX_FILES} are read"
        raise BundleError(what, subject=str(folder.name))
    return names


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
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise BundleError(f"cannot be read as an image: {str(error)[:200]}", subject=f"{what} {path.name}") from error
    return image


def _sound(path: Path) -> tuple[Array, int]:
    """Return a PCM sound in int16, channels averaged, and how many numbers a second it has."""
    try:
        with wave.open(str(path)) as file:
            width, channels, count = file.getsampwidth(), file.getnchannels(), file.getnframes()
            data, rate = file.readframes(count), file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise BundleError(f"cannot be read as PCM sound: {error}", subject=path.name) from error
    if len(data) != count * width * channels:
        text = f"ends after {len(data)} of {count * width * channels} bytes of sound"
        raise BundleError(text, subject=path.name, hint="copy or record it again")
    if width == 1:
        values = (np.frombuffer(data, np.uint8).astype(np.float64) - 128) * 256
    else:
        raw = np.frombuffer(data, np.uint8).reshape(-1, width)[:, -2:]
        values = raw.copy().view("<i2").reshape(-1).astype(np.float64)
    mixed: Array = values.reshape(-1, channels).mean(axis=1)
    return np.rint(mixed).astype(np.int16), rate
