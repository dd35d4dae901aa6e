"""Images as samples: PNG and JPEG files of a folder, decoded, turned upright, in the size that samples have.

For models whose samples are stored in bytes (`sample.dtype` uint8): what the bytes become is the manifest's mapping, as
for every other sample. Where its steps take an image of any size it is left as it is, else it is stretched by the
same arithmetic as a declared step. Files are untrusted: their size is checked before they are decoded. Needs the extra
`images`.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from edge_agent.errors import TensorError
from edge_agent.ports import Array
from edge_agent.processing.casting import cast
from edge_agent.processing.preprocess import apply_steps
from edge_contracts.errors import MissingExtraError, OperatorError
from edge_contracts.manifest import Input, Manifest
from edge_contracts.processing import ANY, Resize

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise MissingExtraError("images", "Pillow") from error

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

MAX_PIXELS = 64 * 1024 * 1024
"""Pixels of one image: 192 MiB once decoded, and more than the cameras of phones have."""

_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder, not in folders below it, sorted by name. Raises OSError."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


class ImageReader:
    """Reads images for the one input of a model."""

    def __init__(self, manifest: Manifest) -> None:
        """Raises OperatorError naming the input if the model does not take one image."""
        tensor = manifest.inputs[0]
        hint = "score it from JSON Lines instead"
        if len(manifest.inputs) != 1:
            raise OperatorError("the model has several inputs", subject=manifest.name, hint=hint)
        if tensor.sample.dtype != "uint8":
            text = f"its samples are {tensor.sample.dtype}, an image is uint8"
            raise OperatorError(text, subject=tensor.name, hint=hint)
        self.name = tensor.name
        self._channels_first, self._channels, self._height, self._width = _layout(tensor, hint)

    def read(self, path: Path) -> Array:
        """Return an image as uint8 [height, width, channels] or [channels, height, width], as the input has it.

        It is turned upright (EXIF) and, unless samples may be of any size, resized to the input's, whatever its own
        proportions. Raises TensorError for what is no image or too large.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
                image = Image.open(path, formats=("PNG", "JPEG"))
            with image:
                if image.width * image.height > MAX_PIXELS:
                    text = f"{image.width} x {image.height} pixels, over {MAX_PIXELS}"
                    raise TensorError(text, subject=path.name)
                upright = ImageOps.exif_transpose(image).convert(_MODES[self._channels])
        except _DAMAGE as error:
            raise TensorError(f"cannot be read as PNG or JPEG: {error}", subject=path.name) from error
        pixels = np.asarray(upright, dtype=np.uint8).reshape(upright.height, upright.width, self._channels)
        if ANY not in (self._height, self._width):
            stretch = Resize(height=self._height, width=self._width)
            pixels = cast(apply_steps(pixels[None], [stretch])[0], pixels.dtype)
        return pixels.transpose(2, 0, 1) if self._channels_first else pixels


def _layout(tensor: Input, hint: str) -> tuple[bool, int, int, int]:
    """Return whether channels come first, and channels, height and width. Raises OperatorError."""
    shape = tuple(tensor.sample_shape)
    if len(shape) == 3:
        shape = (*shape, 1)  # grey without a dimension for it
    if len(shape) == 4:
        if shape[3] in _MODES:
            return False, shape[3], shape[1], shape[2]
        if shape[1] in _MODES:
            return True, shape[1], shape[2], shape[3]
    text = f"{list(tensor.sample_shape)} is not the shape of an image of 1 or 3 channels"
    raise OperatorError(text, subject=tensor.name, hint=hint)
