"""Scoring many samples: JSON Lines, CSV or a folder of images in, JSON Lines out, one answer a line in their order.

Resumable, also after SIGKILL: the output holds one whole line per sample done, so a second run goes on behind the last
one. What an image becomes is in `edge_agent.offline.images`.
"""

from __future__ import annotations

import csv
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from edge_agent.errors import TensorError
from edge_agent.inference.runtime import Runtime
from edge_agent.ports import Array
from edge_contracts.errors import OperatorError
from edge_contracts.manifest import Manifest

_MAX_LINE_CHARS = 16 * 1024 * 1024
_REPORT_S = 1.0
"""How often answers are written out and progress is told, in seconds: what a kill costs at most."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Tensors by input name, or why there are none; `file` is the name of the image it came from."""

    tensors: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    file: str | None = None


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: samples already there, answered now, and refused now."""

    skipped: int
    answered: int
    failed: int


def score_file(runtime: Runtime, source: Path, target: Path, *, progress: Callable[[int], None]) -> Scored:
    """Answer every sample of `source` into `target`; `progress` is told how many are done.

    A line of JSON Lines is an object of tensors by input name, or one tensor for a model of one input; a row of CSV is
    one tensor's numbers, with an optional header row. Each is one sample, without the batch dimension. A folder is its
    images by name. A sample that does not fit becomes a line with `error`. Raises OperatorError naming a file that
    cannot be read, or a target that belongs to another folder of images.
    """
    try:
        with target.open("ab+") as answers:
            done, last = _whole_lines(answers)
            if source.is_dir():
                return _score(runtime, _image_samples(source, runtime.manifest, done, last), answers, done, progress)
            read = _csv_samples if source.suffix.lower() == ".csv" else _json_samples
            with source.open(encoding="utf-8", newline="") as lines:
                samples = itertools.islice(read(lines, runtime.manifest), done, None)
                return _score(runtime, samples, answers, done, progress)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OperatorError(str(error), subject="score") from error


def _score(
    runtime: Runtime, samples: Iterable[Sample], answers: IO[bytes], skipped: int, progress: Callable[[int], None]
) -> Scored:
    answered = failed = 0
    report_at = time.monotonic() + _REPORT_S
    for index, sample in enumerate(samples, start=skipped):
        line: dict[str, Any] = {"index": index}
        if sample.file is not None:
            line["file"] = sample.file
        try:
            line |= _answer(runtime, sample)
            answered += 1
        except TensorError as error:
            line["error"] = str(error)
            failed += 1
        answers.write(msgspec.json.encode(line) + b"\n")
        if time.monotonic() >= report_at:
            report_at = time.monotonic() + _REPORT_S
            answers.flush()
            progress(index + 1)
    answers.flush()
    os.fsync(answers.fileno())
    progress(skipped + answered + failed)
    return Scored(skipped=skipped, answered=answered, failed=failed)


def _answer(runtime: Runtime, sample: Sample) -> dict[str, Any]:
    if sample.error is not None:
        raise TensorError(sample.error, subject="sample")
    manifest = runtime.manifest
    answer = runtime.infer({name: _tensor(manifest, name, value) for name, value in sample.tensors.items()})
    line: dict[str, Any] = {
        "outputs": {name: array[0].tolist() for name, array in answer.outputs.items()},
        "served_by": answer.served_by,
        "abstained": answer.abstained,
    }
    if answer.warnings:
        line["warnings"] = answer.warnings
    first = manifest.outputs[0]
    if first.kind != "values" and first.name in answer.outputs:
        best = int(np.argmax(answer.outputs[first.name][0]))
        line["class"] = manifest.labels[best] if best < len(manifest.labels) else best
    return line


def _tensor(manifest: Manifest, name: str, value: Any) -> Array:
    """Return one sample as a batch of one, in the input's dtype and shape; unknown names are left to the runtime."""
    for tensor in manifest.inputs:
        if tensor.name != name:
            continue
        try:
            array = np.asarray(value, dtype=tensor.sample.dtype)
            shape = tensor.sample_shape[1:]
            return array.reshape([1, *shape]) if shape.count(-1) < 2 else array[None]
        except (ValueError, TypeError, OverflowError) as error:
            raise TensorError(str(error), subject=name) from error
    return np.zeros(0)


def _json_samples(lines: IO[str], manifest: Manifest) -> Iterator[Sample]:
    while line := lines.readline(_MAX_LINE_CHARS):
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            yield Sample(error=f"not JSON: {error}")
            continue
        yield Sample(tensors=value if isinstance(value, dict) else {manifest.inputs[0].name: value})


def _csv_samples(lines: IO[str], manifest: Manifest) -> Iterator[Sample]:
    for number, row in enumerate(csv.reader(lines)):
        if not row:
            continue
        try:
            yield Sample(tensors={manifest.inputs[0].name: [float(cell) for cell in row]})
        except ValueError as error:
            if number:  # words in the first row are the header
                yield Sample(error=str(error))


def _image_samples(folder: Path, manifest: Manifest, done: int, last: bytes) -> Iterator[Sample]:
    """Return the images behind the first `done`. Raises OperatorError unless `last`, the last line of answers, is the
    answer to the one before: a folder that has changed since cannot be gone on with."""
    from edge_agent.offline.images import ImageReader, image_files

    reader, files = ImageReader(manifest), image_files(folder)
    if done:
        answered = msgspec.json.decode(last, type=dict[str, msgspec.Raw]).get("file", b"null")
        if done > len(files) or msgspec.json.decode(answered) != files[done - 1].name:
            hint = "choose another TARGET file"
            raise OperatorError("it contains answers to other images", subject=str(folder), hint=hint)

    def samples() -> Iterator[Sample]:
        for path in files[done:]:
            try:
                yield Sample(tensors={reader.name: reader.read(path)}, file=path.name)
            except TensorError as error:
                yield Sample(error=str(error), file=path.name)

    return samples()


def _whole_lines(answers: IO[bytes]) -> tuple[int, bytes]:
    """Return how many whole lines there are and the last of them, and cut off a torn one."""
    answers.seek(0)
    count = end = 0
    last = b"{}"
    for line in answers:
        if not line.endswith(b"\n"):
            break
        count, end, last = count + 1, end + len(line), line
    answers.truncate(end)
    answers.seek(0, os.SEEK_END)
    return count, last
