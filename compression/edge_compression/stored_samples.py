"""Samples in files as feeds of a model, for the processes that build and compare: one step each, states among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.inference.sample_runs import SampleRuns
from edge_contracts.manifest import Input, SampleMapping


def stored_runs(tensors: Sequence[Input], where: Path) -> SampleRuns:
    """Return the samples of a .npy file for the one tensor, or of a folder with a file `<i>.npy` for each that is no
    constant. A state is fed as it was stored: what is built from steps of sequences has no step before."""
    single = [_stored(tensor) for tensor in tensors]
    arrays = []
    for index, tensor in enumerate(single):
        path = where / f"{index}.npy" if where.is_dir() else where
        arrays.append(np.load(path, mmap_mode="r", allow_pickle=False) if tensor.sampled else np.empty(0))
    return SampleRuns(single, [tensor.name for tensor in single], arrays)


def _stored(tensor: Input) -> Input:
    if tensor.feedback is None:
        return tensor
    return msgspec.structs.replace(tensor, feedback=None, sample=SampleMapping(dtype=tensor.dtype))
