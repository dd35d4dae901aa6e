"""The model cache: every model a search has built, named by its content. Nothing is built twice, and a search that was
killed continues where it was.

    <work>/models/<sha256>.<format>     the files
    <work>/built/<sha256 of what was asked for>.json

Files come into being by a rename: after a kill at any moment an entry is there and whole, or it is not there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from edge_agent.bundle import hash_file
from edge_compression.recipes.recipe import Recipe
from edge_compression.search.build_process import Built
from edge_contracts.codec import StrictRecord, encode


class CachedModel(StrictRecord, frozen=True, kw_only=True):
    """A model in the cache and how it was built."""

    sha256: str
    size: int
    built: Built


class ModelCache:
    """A folder of models. `source` names everything a build depends on besides its recipe."""

    def __init__(self, folder: Path, source: str) -> None:
        self._models, self._built, self.source = folder / "models", folder / "built", source
        for made in (self._models, self._built):
            made.mkdir(parents=True, exist_ok=True)

    def room(self, recipe: Recipe) -> Path:
        """Return a path beside the models for a build to write to, different for each call."""
        descriptor, name = tempfile.mkstemp(dir=self._models, prefix=".building-", suffix=f".{recipe.format}")
        os.close(descriptor)
        return Path(name)

    def path(self, recipe: Recipe, sha256: str) -> Path:
        """Return where a model of this content is, or would be."""
        return self._models / f"{sha256}.{recipe.format}"

    def find(self, recipe: Recipe) -> CachedModel | None:
        """Return what this recipe made here before, if it is there and still what it was."""
        try:
            found = msgspec.json.decode(self._entry(recipe).read_bytes(), type=CachedModel)
            intact = hash_file(self.path(recipe, found.sha256)) == found.sha256
        except (OSError, msgspec.MsgspecError):
            return None
        return found if intact else None

    def place(self, recipe: Recipe, made: Path, built: Built) -> CachedModel:
        """Take the file a build wrote and remember what made it."""
        cached = CachedModel(sha256=hash_file(made), size=made.stat().st_size, built=built)
        made.replace(self.path(recipe, cached.sha256))
        entry = self._entry(recipe)
        draft = entry.with_suffix(f".{os.getpid()}")
        draft.write_bytes(encode(cached))
        draft.replace(entry)
        return cached

    def sweep(self) -> None:
        """Remove what builds that were killed left behind. Only for a folder that nobody else is using."""
        for left in self._models.glob(".building-*"):
            left.unlink(missing_ok=True)

    def _entry(self, recipe: Recipe) -> Path:
        asked = encode({"source": self.source, "format": recipe.format, "passes": recipe.passes})
        return self._built / f"{hashlib.sha256(asked).hexdigest()}.json"
