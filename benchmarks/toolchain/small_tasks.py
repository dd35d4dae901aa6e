"""The small tasks of the how-to pages, made anew: scenes of digits, text, a table and a stream of sound.

    python benchmarks/toolchain/small_tasks.py edgewright/demo/data/tasks [detect segment alarm passages tumors embed]

All data ship with scikit-learn (BSD-3-Clause) but the sound, which is made here. Needs the extras `compress`, `train`
and `sklearn`; a minute of one core. Training and evaluation share no picture, passage or row. The task files beside the
models are written by hand and stay.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[Any]
SIDE, CELL = 32, 4
"""Pixels of a scene and of one cell of the detector's grid."""

FRAME, RATE, LASTING = 160, 8000, 3
"""Numbers of a frame of sound, how many a second, and the frames a tone must last to be an alarm."""


def digits() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return pictures [N, 8, 8] from 0 to 255 with their classes: those trained on, and others."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.minimum(found.images * 16, 255)
    return (images[:1200], found.target[:1200]), (images[1200:], found.target[1200:])


def scene(rng: np.random.Generator, images: Array, kinds: Array) -> tuple[Array, Array, Array]:
    """Return a picture [32, 32], its boxes [n, 5] as class, x1, y1, x2, y2, and the class + 1 of each pixel."""
    picture, mask = rng.uniform(0, 40, (SIDE, SIDE)), np.zeros((SIDE, SIDE), np.int64)
    taken = np.zeros((SIDE, SIDE), bool)
    boxes = []
    for _ in range(int(rng.integers(1, 4))):
        index, size = int(rng.integers(len(images))), int(rng.integers(9, 15))
        x, y = rng.integers(0, SIDE - size, 2)
        if taken[y : y + size, x : x + size].any():
            continue
        taken[y : y + size, x : x + size] = True
        at = np.linspace(0, 7, size).round().astype(int)
        digit = images[index][np.ix_(at, at)]
        place = (slice(y, y + size), slice(x, x + size))
        picture[place] = np.maximum(picture[place], digit)
        mask[place][digit > 100] = kinds[index] + 1
        boxes.append((kinds[index], x, y, x + size, y + size))
    return picture.astype(np.uint8), np.array(boxes, np.float64), mask


def scenes(count: int, seed: int, part: tuple[Array, Array]) -> tuple[Array, list[Array], Array]:
    """Return pictures [N, 1, 32, 32] in uint8, the boxes of each, and masks [N, 32, 32]."""
    rng = np.random.default_rng(seed)
    made = [scene(rng, *part) for _ in range(count)]
    return np.stack([one[0] for one in made])[:, None], [one[1] for one in made], np.stack([one[2] for one in made])


def trained(
    net: nn.Module, x: Array | tuple[Array, ...], loss: Callable[[Any, Array], Any], *, steps: int, batch: int = 64
) -> nn.Module:
    """Train with Adam; `loss` is given the answers and the numbers of the samples."""
    fed = tuple(torch.as_tensor(one) for one in (x if isinstance(x, tuple) else (x,)))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        index = rng.integers(0, len(fed[0]), batch)
        optimizer.zero_grad()
        value = loss(net(*(one[index] for one in fed)), index)
        value.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def export(net: nn.Module, path: Path, fed: dict[str, Any], outputs: list[str]) -> None:
    """Write an ONNX model of any batch size. `fed` are example inputs by name."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in fed)
    program = torch.onnx.export(
        net, tuple(fed.values()), input_names=list(fed), output_names=outputs, dynamic_shapes=shapes, dynamo=True,
        verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(path, external_data=False)


def layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution of 3 x 3 with normalization."""
    convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


class Detector(nn.Module):
    """Boxes [N, 64, 4] as center and size in pixels, and scores [N, 64, 10], one row a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer(1, 12), layer(12, 16, 2), layer(16, 24), layer(24, 32, 2), layer(32, 32), layer(32, 32)
        )
        self.head = nn.Conv2d(32, 14, 1)
        row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        self.register_buffer("cells", torch.stack([column, row], -1).reshape(1, 64, 2) * CELL + CELL / 2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.head(self.body(image)).flatten(2).transpose(1, 2)
        center, size = self.cells + rows[..., :2] * CELL, torch.exp(rows[..., 2:4]) * 12
        return torch.cat([center, size], -1), torch.sigmoid(rows[..., 4:])


def detect(folder: Path) -> None:
    """Detect digits: `digits_detect`."""
    train, other = digits()
    x, boxes, _ = scenes(4000, 1, train)
    wanted, place = np.zeros((4000, 64, 10), np.float32), np.zeros((4000, 64, 4), np.float32)
    for index, rows in enumerate(boxes):
        for kind, x1, y1, x2, y2 in rows:
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            cell = int(cy // CELL) * 8 + int(cx // CELL)
            wanted[index, cell, int(kind)] = 1
            place[index, cell] = cx, cy, x2 - x1, y2 - y1
    y, where = torch.as_tensor(wanted), torch.as_tensor(place)

    def loss(answers: Any, index: Array) -> Any:
        found, scores = answers
        true = y[index]
        there = true.amax(-1, keepdim=True)
        focal = nn.functional.binary_cross_entropy(scores, true, reduction="none") * (true - scores).abs() ** 2
        return (focal.sum() * 4 + ((found - where[index]).abs() * there).sum() * 0.1) / len(index)

    net = trained(Detector(), x.astype(np.float32) / 255, loss, steps=1500)
    export(net, folder / "digits_detect.onnx", {"image": torch.zeros(2, 1, 32, 32)}, ["boxes", "scores"])
    x, boxes, _ = scenes(160, 2, other)
    rows = np.array([(i, *row) for i, one in enumerate(boxes) for row in one], np.float32)
    calibration = scenes(40, 3, train)[0]
    np.savez_compressed(folder / "digits_detect.npz", x=x, y=rows, calib_x=calibration)


class Segmenter(nn.Module):
    """Scores [N, 11, 32, 32]: nothing and ten digits, for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer(1, 12), layer(12, 12))
        self.low = nn.Sequential(layer(12, 24, 2), layer(24, 24), layer(24, 32, 2), layer(32, 32), layer(32, 32))
        self.up = nn.ConvTranspose2d(32, 16, 4, 4)
        self.head = nn.Conv2d(28, 11, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.first(image)
        return self.head(torch.cat([first, self.up(self.low(first))], 1))


def segment(folder: Path) -> None:
    """Say of each pixel which digit it is of: `digits_segment`."""
    train, other = digits()
    x, _, masks = scenes(3000, 4, train)
    y, weight = torch.as_tensor(masks), torch.tensor([0.3] + [1.0] * 10)

    def loss(answers: Any, index: Array) -> Any:
        return nn.functional.cross_entropy(answers, y[index], weight)

    net = trained(Segmenter(), x.astype(np.float32) / 255, loss, steps=900)
    export(net, folder / "digits_segment.onnx", {"image": torch.zeros(2, 1, 32, 32)}, ["logits"])
    x, _, masks = scenes(96, 5, other)
    calibration = scenes(32, 6, train)[0]
    np.savez_compressed(folder / "digits_segment.npz", x=x, y=masks.astype(np.uint8), calib_x=calibration)


class Listener(nn.Module):
    """The chance that an alarm sounds, of one frame [N, 160] and what is remembered [N, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.mix = nn.Linear(FRAME, 64), nn.Linear(64, 32)
        self.gates, self.fresh, self.head = nn.Linear(64, 64), nn.Linear(64, 32), nn.Linear(32, 1)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heard = torch.relu(self.mix(self.filters(frame) ** 2))
        update, reset = torch.sigmoid(self.gates(torch.cat([heard, state], 1))).chunk(2, 1)
        fresh = torch.tanh(self.fresh(torch.cat([heard, reset * state], 1)))
        after = (1 - update) * state + update * fresh
        return torch.sigmoid(self.head(after)), after


def sound(rng: np.random.Generator, frames: int) -> tuple[Array, Array]:
    """Return a sequence [T, 160] in int16 and, of each frame, whether a tone near 1 kHz has lasted so far."""
    alarm, other = np.zeros(frames, bool), np.zeros(frames, bool)
    for which, most in ((alarm, 10), (alarm, 2), (other, 10)):
        start, length = int(rng.integers(0, frames - 2)), int(rng.integers(1, most + 1))
        which[start : start + length] = True
    lasted = np.zeros(frames, int)
    for at in range(frames):
        lasted[at] = (lasted[at - 1] + 1 if at else 1) if alarm[at] else 0
    time = np.arange(frames * FRAME) / RATE
    loud, pitch, low = rng.uniform(0.1, 0.5), rng.uniform(950, 1050), rng.uniform(250, 500)
    wave = loud * np.sin(2 * np.pi * pitch * time) * np.repeat(alarm, FRAME)
    wave += 0.4 * np.sin(2 * np.pi * low * time) * np.repeat(other, FRAME) + rng.normal(0, 0.15, time.size)
    return (wave.clip(-1, 1) * 32767).astype(np.int16).reshape(frames, FRAME), (lasted >= LASTING).astype(np.int64)


def alarm(folder: Path) -> None:
    """Hear an alarm in a stream of frames: `alarm_stream`."""

    def sounds(count: int, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        made = [sound(rng, 24) for _ in range(count)]
        return np.stack([one[0] for one in made]), np.stack([one[1] for one in made])

    class Unrolled(nn.Module):
        def __init__(self, net: Listener) -> None:
            super().__init__()
            self.net = net

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            state, found = torch.zeros(len(frames), 32), []
            for at in range(frames.shape[1]):
                said, state = self.net(frames[:, at], state)
                found.append(said)
            return torch.cat(found, 1)

    x, y = sounds(3000, 7)
    true = torch.as_tensor(y, dtype=torch.float32)
    net = Listener()
    trained(
        Unrolled(net), x.astype(np.float32) / 32768,
        lambda answers, index: nn.functional.binary_cross_entropy(answers, true[index]), steps=900,
    )  # fmt: skip
    fed = {"frame": torch.zeros(2, FRAME), "state": torch.zeros(2, 32)}
    export(net.eval(), folder / "alarm_stream.onnx", fed, ["chance", "state_after"])
    x, y = sounds(24, 8)
    np.savez_compressed(folder / "alarm_stream.npz", x=x, y=y.astype(np.uint8), calib_x=sounds(8, 9)[0])


class Reader(nn.Module):
    """Scores [N, 5] of a passage: words [N, 24] and where there are any [N, 24]."""

    def __init__(self, words: int, kinds: int) -> None:
        super().__init__()
        self.words, self.look = nn.Embedding(words, 32), nn.Linear(32, 1)
        self.hidden, self.head = nn.Linear(32, 48), nn.Linear(48, kinds)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        known = self.words(ids)
        weight = torch.softmax(self.look(known).squeeze(-1) + (mask.to(known.dtype) - 1) * 1e4, -1)
        return self.head(torch.relu(self.hidden((known * weight.unsqueeze(-1)).sum(1))))


def passages(folder: Path) -> None:
    """Say which data set a passage describes: `passages`, of scikit-learn's own descriptions."""
    from sklearn import datasets

    known = (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_diabetes,
             datasets.load_digits)  # fmt: skip
    texts = ["".join(c if c.isalpha() else " " for c in load().DESCR.lower()).split() for load in known]
    counts: dict[str, int] = {}
    for text in texts:
        for word in text:
            counts[word] = counts.get(word, 0) + 1
    table = {word: i + 2 for i, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word))[:510])}
    rng = np.random.default_rng(10)

    def windows(count: int, parts: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Passages of 10 to 24 words. Texts are cut into stretches of 24; only those of `parts` (of 5) are read."""
        ids, mask, y = np.zeros((count, 24), np.int64), np.zeros((count, 24), np.int64), rng.integers(0, 5, count)
        for row in range(count):
            text = texts[y[row]]
            stretches = [at for at in range(0, len(text), 24) if at // 24 % 5 in parts]
            begin, length = stretches[int(rng.integers(len(stretches)))], int(rng.integers(10, 25))
            piece = text[begin : begin + 24]
            start = int(rng.integers(0, max(1, len(piece) - length)))
            chosen = [table.get(word, 1) for word in piece[start : start + length]]
            ids[row, : len(chosen)], mask[row, : len(chosen)] = chosen, 1
        return ids, mask, y

    ids, mask, y = windows(4000, (0, 1, 2, 3))
    true = torch.as_tensor(y)
    net = trained(Reader(512, 5), (ids, mask), lambda a, index: nn.functional.cross_entropy(a, true[index]), steps=500)
    fed = {"ids": torch.ones(2, 24, dtype=torch.long), "mask": torch.ones(2, 24, dtype=torch.long)}
    export(net, folder / "passages.onnx", fed, ["scores"])
    c_ids, c_mask, _ = windows(64, (0, 1, 2, 3))
    ids, mask, y = windows(400, (4,))
    _, first = np.unique(ids, axis=0, return_index=True)
    keep = np.sort(first)
    np.savez_compressed(
        folder / "passages.npz", ids=ids[keep], mask=mask[keep], y=y[keep], calib_ids=c_ids, calib_mask=c_mask
    )


@contextlib.contextmanager
def whole_numbers() -> Iterator[None]:
    """Write truth values of attributes as 0 and 1: skl2onnx 1.20 gives lists of them, which onnx 1.23 refuses."""
    make = onnx.helper.make_attribute

    def made(key: str, value: Any, *more: Any, **named: Any) -> Any:
        return make(key, [int(one) for one in value] if key.endswith("tracks_true") else value, *more, **named)

    with mock.patch.object(onnx.helper, "make_attribute", made):
        yield


def tumors(folder: Path) -> None:
    """Malignant or benign, of ten measurements, some of them missing: `tumors`, gradient-boosted trees."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier

    found = load_breast_cancer()
    rng = np.random.default_rng(11)
    x = found.data[:, :10].astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    order = rng.permutation(len(x))
    fit, rest = order[:300], order[300:]
    model = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(x[fit], found.target[fit])
    with whole_numbers():
        made: Any = to_onnx(model, x[:1], options={"zipmap": False}, target_opset=17)
    (folder / "tumors.onnx").write_bytes(made.SerializeToString())
    names = [str(name).replace(" ", "_") for name in found.feature_names[:10]]
    lines = [",".join([*names, "finding"])]
    for row in rest:
        numbers = ["" if np.isnan(value) else f"{value:.5g}" for value in x[row]]
        lines.append(",".join([*numbers, str(found.target_names[found.target[row]])]))
    (folder / "tumors.csv").write_text("\n".join(lines) + "\n")


class Embedder(nn.Module):
    """An embedding [N, 32] of a picture [N, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(layer(1, 16), layer(16, 32, 2), layer(32, 32), nn.Flatten(), nn.Linear(512, 32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)


def embed(folder: Path) -> None:
    """Pictures without labels: `digits_embed`."""
    (x, y), (other, _) = digits()
    head, true = nn.Linear(32, 10), torch.as_tensor(y)
    body = Embedder()
    net = nn.Sequential(body, head)
    fed = (x[:, None] / 255).astype(np.float32)
    trained(net, fed, lambda a, index: nn.functional.cross_entropy(a, true[index]), steps=400)
    export(body.eval(), folder / "digits_embed.onnx", {"image": torch.zeros(2, 1, 8, 8)}, ["embedding"])
    np.savez_compressed(folder / "digits_embed.npz", x=other[:400, None].astype(np.uint8))


MAKERS = {one.__name__: one for one in (detect, segment, alarm, passages, tumors, embed)}


def main(words: list[str]) -> None:
    """Make the tasks that are named, or all, in the folder given first."""
    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in words[1:] or MAKERS:
        torch.manual_seed(0)
        MAKERS[name](folder)
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
