"""A model or bundle as it is at a commit of the repository that holds it, written into a folder. Needs git."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from edge_contracts.errors import OperatorError
from edge_contracts.limits import MIB

MAX_BYTES = 2048 * MIB
PATIENCE_S = 120.0
LFS = b"version https://git-lfs.github.com/spec/"
"""How a file begins that stands for one that Git LFS keeps elsewhere."""


def at_ref(path: Path, ref: str, folder: Path) -> Path:
    """Return the file or folder `path` as it is at `ref`, written below `folder`.

    Raises OperatorError: no repository, no such commit, not there then, or only a pointer of Git LFS.
    """
    whole = path.resolve()
    beside = whole if whole.is_dir() else whole.parent
    top = Path(_git(beside, "rev-parse", "--show-toplevel", subject=str(path)).decode().strip())
    _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", subject=f"--against {ref}")
    relative = whole.relative_to(top.resolve()).as_posix()
    packed = _git(top, "archive", "--format=tar", ref, "--", relative, subject=f"--against {ref}")
    if len(packed) > MAX_BYTES:
        raise OperatorError(f"more than {MAX_BYTES // MIB} MiB at {ref}", subject=str(path))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    found = folder / relative
    for file in [found] if found.is_file() else found.rglob("*"):
        if file.is_file() and _begins(file, LFS):
            hint = "git lfs fetch --all, and give --against a copy of the file"
            raise OperatorError(f"is kept in Git LFS: only a pointer at {ref}", subject=relative, hint=hint)
    return found


def _begins(file: Path, start: bytes) -> bool:
    with file.open("rb") as source:
        return source.read(len(start)) == start


def _git(folder: Path, *words: str, subject: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, timeout=PATIENCE_S, check=False)
    except FileNotFoundError as error:
        raise OperatorError("git is not installed", subject=subject) from error
    except subprocess.TimeoutExpired as error:
        raise OperatorError(f"git took longer than {PATIENCE_S:.0f} s", subject=subject) from error
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no such commit"])[-1]
        hint = "a branch, tag or commit of the repository that holds the model, or the path of another model or bundle"
        raise OperatorError(said[:300], subject=subject, hint=hint)
    return done.stdout
