"""Error rates of text: edits to the true text over its length, counted by jiwer."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_bench.metrics.table import Array, Table, function_of_sums, ratio
from edge_contracts.errors import MissingExtraError, OperatorError


def cer(answers: Array, truth: Array) -> Table:
    """Return the character error rate of texts [N]."""
    return _rate(answers, truth, "cer")


def wer(answers: Array, truth: Array) -> Table:
    """Return the word error rate of texts [N]."""
    return _rate(answers, truth, "wer")


def _rate(answers: Array, truth: Array, metric: str) -> Table:
    if answers.dtype.kind != "U":
        hint = "declare how text is made of the answers: an [[answer]] step such as ctc, and judge its name"
        raise OperatorError(f"{metric} compares texts, the answers are numbers", hint=hint)
    if truth.dtype.kind != "U":
        raise OperatorError(f"{metric} takes texts as the truth, not {truth.dtype}")
    if answers.shape != truth.shape or answers.ndim != 1:
        raise OperatorError(f"{metric} takes one text a sample: answers {answers.shape}, truth {truth.shape}")
    counts = [_edits(str(said), str(true), metric) for said, true in zip(answers, truth, strict=True)]
    return function_of_sums(np.array(counts), lambda sums: ratio(sums[:, 0], sums[:, 1]))


def _edits(said: str, true: str, metric: str) -> tuple[int, int]:
    """Return how many edits make the true text of what was said, and its length."""
    length = len(true) if metric == "cer" else len(true.split())
    if not length:
        return (len(said) if metric == "cer" else len(said.split())), 0
    process = _jiwer(metric)
    found = process(true, said)
    return found.substitutions + found.deletions + found.insertions, length


def _jiwer(metric: str) -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtraError("compress", "jiwer") from error
    return jiwer.process_characters if metric == "cer" else jiwer.process_words
