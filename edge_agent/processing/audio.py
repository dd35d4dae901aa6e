"""Time series: overlapping windows, mel spectrograms and cepstral coefficients.

Sources: S. Stevens, J. Volkmann, E. Newman, JASA 8, 1937, in the form of the HTK book (1127 ln(1 + f / 700)) for the
mel scale; S. Davis, P. Mermelstein, IEEE TASSP 28, 1980, for the coefficients; conventions as in tf.signal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contracts.processing import Mel

Floats = NDArray[np.float32]


def windows(series: NDArray[Any], length: int, hop: int) -> NDArray[Any]:
    """Return a series [time, ...] as a view of its windows [frames, length, ...]."""
    views: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(series, length, axis=0)[::hop]
    return np.moveaxis(views, -1, 1)


def mel(sound: NDArray[Any], step: Mel) -> Floats:
    """Return a sound [time] as `step` says: [frames, bands] or [frames, coefficients], float32."""
    hann, bands, cosines = _tables(step)
    framed = windows(sound.astype(np.float32), step.length, step.hop) * hann
    magnitudes = np.abs(np.fft.rfft(framed, step.fft, axis=1))
    energy = np.log(magnitudes**step.power @ bands + step.floor)
    return np.asarray(energy if cosines is None else energy @ cosines, dtype=np.float32)


@lru_cache(maxsize=16)
def _tables(step: Mel) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return the window [length], the bands [fft / 2 + 1, bands] and the cosines [bands, coefficients], if asked."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(step.length) / step.length)
    edges = np.linspace(_mel(step.low_hz), _mel(step.high_hz), step.bands + 2)
    points = _mel(np.arange(step.fft // 2 + 1) * (step.rate_hz / step.fft))[:, None]
    rising = (points - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - points) / (edges[2:] - edges[1:-1])
    bands = np.maximum(0.0, np.minimum(rising, falling))
    bands[0] = 0.0  # a constant offset is no sound
    if step.coefficients is None:
        return hann, bands, None
    order = np.arange(step.coefficients)
    cosines = np.cos(np.pi / step.bands * (np.arange(step.bands)[:, None] + 0.5) * order)
    return hann, bands, cosines * np.sqrt(2.0 / step.bands)


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0)
