"""Metrics of numbers, signals, images and embeddings."""

from __future__ import annotations

import math

import numpy as np

from edge_agent.inference.quality_metrics import OFFSET_SHARE
from edge_bench.metrics.table import Array, Floats, Table, alike, finite, function_of_sums, mean_of, per_sample, ratio
from edge_contracts.errors import MissingExtraError, OperatorError

TINY = 1e-30
FLAT = 1e-12
"""Share of the power below which numbers are all the same."""

MAX_DB = 200.0
"""Decibels of what is equal to the last bit."""


def mae(answers: Array, truth: Array) -> Table:
    """Return the mean absolute error."""
    a, b = alike(finite(answers, "mae"), truth, "mae")
    return mean_of(np.abs(a - b).mean(axis=1))


def rmse(answers: Array, truth: Array) -> Table:
    """Return the root of the mean squared error."""
    a, b = alike(finite(answers, "rmse"), truth, "rmse")
    terms = np.stack([np.square(a - b).mean(axis=1), np.ones(a.shape[0])], axis=1)
    return function_of_sums(terms, lambda sums: np.sqrt(ratio(sums[:, 0], sums[:, 1])))


def mape(answers: Array, truth: Array) -> Table:
    """Return the mean absolute error relative to each true number, which must not be 0."""
    a, b = alike(finite(answers, "mape"), truth, "mape")
    if not np.abs(b).min(initial=1.0) > 0.0:
        raise OperatorError("mape divides by the truth, which holds 0", hint="mae or rmse")
    return mean_of((np.abs(a - b) / np.abs(b)).mean(axis=1))


def si_sdr(answers: Array, truth: Array) -> Table:
    """Return the mean scale-invariant signal-to-distortion ratio in decibels, signals along the last axis with their
    means taken off (J. Le Roux et al., ICASSP 2019)."""
    alike(finite(answers, "si_sdr"), truth, "si_sdr")
    b = truth.astype(np.float64)
    a = answers.reshape(truth.shape).astype(np.float64)
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    scale = (a * b).sum(axis=-1, keepdims=True) / np.maximum(np.square(b).sum(axis=-1, keepdims=True), TINY)
    signal = np.square(scale * b).sum(axis=-1)
    noise = np.square(a - scale * b).sum(axis=-1)
    return mean_of(per_sample(_db(signal, noise)).mean(axis=1))


def psnr(answers: Array, truth: Array) -> Table:
    """Return the mean peak signal-to-noise ratio in decibels; the peak is the truth's range, 255 for uint8."""
    a, b = alike(finite(answers, "psnr"), truth, "psnr")
    peak = 255.0 if truth.dtype == np.uint8 else float(np.ptp(b))
    return mean_of(_db(np.full(a.shape[0], peak * peak), np.square(a - b).mean(axis=1)))


def ssim(answers: Array, truth: Array) -> Table:
    """Return the mean structural similarity of images [N, ..., H, W] or [N, H, W, C]: Gaussian windows of sigma 1.5 and
    11 pixels (Z. Wang et al., IEEE TIP 13, 2004)."""
    a, b = alike(finite(answers, "ssim"), truth, "ssim")
    shape = truth.shape
    if len(shape) < 3:
        raise OperatorError(f"ssim compares images [N, ..., height, width], not {list(shape)}")
    last = len(shape) == 4 and shape[-1] <= 4 < min(shape[1:3])
    planes = [np.moveaxis(one.reshape(shape), -1, 1) if last else one.reshape(shape) for one in (a, b)]
    spread = 255.0 if truth.dtype == np.uint8 else float(np.ptp(b)) or 1.0
    rows = [
        np.mean([_ssim(one, other, spread) for one, other in zip(_planes(mine), _planes(theirs), strict=True)])
        for mine, theirs in zip(*planes, strict=True)
    ]
    return mean_of(np.array(rows))


def cosine(answers: Array, truth: Array) -> Table:
    """Return the mean cosine of the angle between each sample's numbers and the truth's."""
    a, b = alike(finite(answers, "cosine"), truth, "cosine")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.where(np.linalg.norm(a, axis=1) == np.linalg.norm(b, axis=1), 1.0, 0.0)
    return mean_of(np.where(lengths > 0.0, (a * b).sum(axis=1) / np.maximum(lengths, TINY), same))


def recall_at(answers: Array, truth: Array, k: int) -> Table:
    """Return the share of samples with one of their own kind among the `k` others nearest by cosine. `truth` [N] says
    which kind each is; samples whose kind has no other are left out."""
    rows = per_sample(finite(answers, "recall_at")).astype(np.float64)
    if truth.ndim != 1:
        raise OperatorError(f"recall_at takes one label a sample, not a truth of {list(truth.shape[1:])} a sample")
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    same = truth[:, None] == truth
    np.fill_diagonal(same, val=False)
    asked = same.any(axis=1)
    if not asked.any():
        raise OperatorError("recall_at needs labels that appear twice at least")
    best = np.argsort(-near, axis=1, kind="stable")[:, :k]
    hit = np.take_along_axis(same, best, axis=1).any(axis=1)
    terms = np.stack([hit & asked, asked], axis=1)
    return function_of_sums(terms, lambda sums: ratio(sums[:, 0], sums[:, 1]))


def relative_error(answers: Array, original: Array) -> Table:
    """Return the error relative to the original's answers, as `edge_agent.inference.quality_metrics.relative_error`;
    of what is no real number the share of elements that differ."""
    if answers.shape != original.shape:
        raise OperatorError(f"answers of {list(answers.shape)} for the original's {list(original.shape)}")
    if original.dtype.kind != "f":
        return mean_of(per_sample(answers != original).mean(axis=1))
    scale = float(np.abs(original[np.isfinite(original)]).max(initial=0.0)) or 1.0
    rows = [_sums(one, other, scale) for one, other in zip(answers, original, strict=True)]
    if not all(rows):
        return mean_of(np.full(answers.shape[0], math.inf))

    def combine(total: Floats) -> Floats:
        noise, power, whole, count = total.T
        spread = np.maximum(power - np.square(whole) / np.maximum(count, 1), 0.0)
        plain = np.sqrt(noise / np.maximum(power, TINY))
        far = spread > FLAT * np.maximum(power, TINY)
        about = np.where(far, OFFSET_SHARE * np.sqrt(noise / np.where(far, spread, 1.0)), 0.0)
        return np.asarray(np.maximum(plain, about))

    return function_of_sums(np.array(rows), combine)


def _sums(answer: Array, original: Array, scale: float) -> tuple[float, ...]:
    """Return the noise, the power, the sum and the count of one sample's finite numbers; nothing where one of the two
    is no number and the other is."""
    known = np.isfinite(original)
    if not np.array_equal(known, np.isfinite(answer)):
        return ()
    a, b = answer[known].astype(np.float64) / scale, original[known].astype(np.float64) / scale
    return float(np.square(a - b).sum()), float(np.square(b).sum()), float(b.sum()), float(b.size)


def _db(signal: Floats, noise: Floats) -> Floats:
    return np.clip(10.0 * np.log10(np.maximum(signal, TINY) / np.maximum(noise, TINY)), -MAX_DB, MAX_DB)


def _planes(image: Floats) -> Floats:
    return image.reshape(-1, *image.shape[-2:])


def _ssim(a: Floats, b: Floats, spread: float) -> float:
    try:
        from scipy.ndimage import gaussian_filter
    except ImportError as error:
        raise MissingExtraError("compress", "scipy") from error

    def blurred(image: Floats) -> Floats:
        return np.asarray(gaussian_filter(image, 1.5, truncate=3.5))

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))
