"""Scoring a file of samples: JSON Lines or CSV in, JSON Lines out, one answer a line in the order of the samples.

Resumable: the output holds one line per sample done, so a second run goes on after the last whole line.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from edge_agent.errors import TensorError
from edge_agent.ports import Array
from edge_agent.runtime import Runtime
from edge_contracts.errors import OperatorError
from edge_contracts.manifest import Manifest

_MAX_LINE_CHARS = 16 * 1024 * 1024
_REPORT_EVERY = 100


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: samples already there, answered now, and refused now."""

    skipped: int
    answered: int
    failed: int


def score_file(runtime: Runtime, source: Path, target: Path, *, progress: Callable[[int], None]) -> Scored:
    """Answer every sample of `source` into `target`; `progress` is told how many are done.

    A line of JSON Lines is an object of tensors by input name, or one tensor for a model of one input; a row of CSV is
    one tensor's numbers, with an optional header row. Each is one sample, without the batch dimension. A sample that
    does not fit becomes a line with `error`. Raises OperatorError naming a file that cannot be read.
    """
    read = _csv_samples if source.suffix.lower() == ".csv" else _json_samples
    try:
        with source.open(encoding="utf-8", newline="") as samples, target.open("ab+") as answers:
            return _score(runtime, read(samples, runtime.manifest), answers, progress)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OperatorError(str(error), subject="score") from error


def _score(
    runtime: Runtime, samples: Iterator[dict[str, Any]], answers: IO[bytes], progress: Callable[[int], None]
) -> Scored:
    skipped = _whole_lines(answers)
    answered = failed = 0
    for index, sample in enumerate(itertools.islice(samples, skipped, None), start=skipped):
        line: dict[str, Any] = {"index": index}
        try:
            line |= _answer(runtime, sample)
            answered += 1
        except TensorError as error:
            line["error"] = str(error)
            failed += 1
        answers.write(msgspec.json.encode(line) + b"\n")
        if (index + 1) % _REPORT_EVERY == 0:
            answers.flush()
            progress(index + 1)
    answers.flush()
    os.fsync(answers.fileno())
    progress(skipped + answered + failed)
    return Scored(skipped=skipped, answered=answered, failed=failed)


def _answer(runtime: Runtime, sample: dict[str, Any]) -> dict[str, Any]:
    if "error" in sample:
        raise TensorError(sample["error"], subject="sample")
    manifest = runtime.manifest
    answer = runtime.infer({name: _tensor(manifest, name, value) for name, value in sample["tensors"].items()})
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
            return array.reshape([1, *tensor.shape[1:]])
        except (ValueError, TypeError, OverflowError) as error:
            raise TensorError(str(error), subject=name) from error
    return np.zeros(0)


def _json_samples(lines: IO[str], manifest: Manifest) -> Iterator[dict[str, Any]]:
    while line := lines.readline(_MAX_LINE_CHARS):
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            yield {"error": f"not JSON: {error}"}
            continue
        yield {"tensors": value if isinstance(value, dict) else {manifest.inputs[0].name: value}}


def _csv_samples(lines: IO[str], manifest: Manifest) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(csv.reader(lines)):
        if not row:
            continue
        try:
            yield {"tensors": {manifest.inputs[0].name: [float(cell) for cell in row]}}
        except ValueError as error:
            if number:  # words in the first row are the header
                yield {"error": str(error)}


def _whole_lines(answers: IO[bytes]) -> int:
    """Return how many whole lines there are, and cut off a torn one."""
    answers.seek(0)
    count = end = 0
    for line in answers:
        if not line.endswith(b"\n"):
            break
        count, end = count + 1, end + len(line)
    answers.truncate(end)
    answers.seek(0, os.SEEK_END)
    return count
