"""One process that fuzzes one target with atheris, within limits of time, processor and memory.

    python tests/campaigns/fuzzing/worker.py TARGET --findings DIR --scratch DIR [--seconds N] [--corpus DIR] [--seed N]

First come the examples, the attacks on their form and the regression cases; with `--seconds 0`, which needs no atheris,
nothing else. What a surface raises beyond its refusals, and what takes too long, is a finding: its bytes go to
`<findings>/<surface>/`, once for each place it comes from, and a line to `<findings>/found.jsonl`; fuzzing goes on.
What ends the process (a crash, a hang) leaves its bytes in `<findings>/crashes`. The limits are the operating
system's, which is why this is a process; `fuzz_campaign` runs many of them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tests/, for `campaigns` and `support`

from campaigns.fuzzing.forms import mutated

if TYPE_CHECKING:
    from campaigns.fuzzing.surfaces import Run, Surface

REGRESSIONS = Path(__file__).parent / "regressions"
"""Inputs that once went wrong, in a folder for each surface."""

MEMORY_MB = 384
"""Address space that one input may add: 256 MiB is the largest named limit of any parser here (an .npz archive)."""

CPU_S = 2.0
"""Processor time that one input may take."""

HANG_S = 30
"""Wall time after which an input counts as a hang and the process is ended; the machine may be busy."""

MAX_BYTES = 300_000
"""Longest input: above most limits of size, so that they are tried as well."""

LIBRARIES = [
    *("edge_contracts", "edge_io", "edge_agent", "edge_fleet", "edge_bench", "edge_compression"),
    *("tuf", "securesystemslib", "tomllib", "zipfile"),
]
"""Packages whose branches steer the fuzzer."""


class Findings:
    """Keeps the first input for each way to go wrong. `folder` has a folder for each surface."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()

    def keep(self, surface: str, data: bytes, error: BaseException | str) -> None:
        """Keep an input and the end of its traceback, unless the same place was reached before."""
        what, where = error if isinstance(error, str) else type(error).__name__, ""
        if not isinstance(error, str):
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if f"{os.sep}edge_" in frame.filename] or list(frames)
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        if f"{surface} {what} {where}" in self._seen:
            return
        self._seen.add(f"{surface} {what} {where}")
        name = f"{what.lower().replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
        (self._folder / surface).mkdir(parents=True, exist_ok=True)
        (self._folder / surface / name).write_bytes(data)
        line = {"surface": surface, "error": what, "where": where, "text": str(error)[:300], "file": name}
        with (self._folder / "found.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")


class Target:
    """The surfaces of a target, open; an input's first byte chooses one."""

    def __init__(self, surfaces: tuple[Surface, ...], folder: Path, findings: Findings) -> None:
        self._surfaces = surfaces
        self._findings = findings
        self.count = 0
        self.words = sorted({word for surface in surfaces for seed in surface.seeds() for word in _words(seed)})
        self._runs: list[Run] = []
        for surface in surfaces:
            (folder / surface.name).mkdir(parents=True)
            self._runs.append(surface.open(folder / surface.name))

    def seeds(self) -> list[bytes]:
        """Return every surface's examples as inputs of this target."""
        return [bytes([index]) + seed for index, surface in enumerate(self._surfaces) for seed in surface.seeds()]

    def run_known(self) -> None:
        """Run the examples, the attacks on their forms and what once went wrong; attacks are too long to learn from."""
        for index, surface in enumerate(self._surfaces):
            cases = sorted((REGRESSIONS / surface.name).glob("*"))
            for known in (*surface.seeds(), *surface.form.attacks, *(case.read_bytes() for case in cases)):
                self.run(bytes([index]) + known)

    def run(self, data: bytes) -> None:
        """Give one input to its surface and judge what it does."""
        self.count += 1
        index = (data[0] if data else 0) % len(self._surfaces)
        surface, body = self._surfaces[index], bytes(data[1:])
        start = time.process_time()
        try:
            with limited_memory():
                self._runs[index](body)
        except surface.refusals:
            pass
        except Exception as error:
            self._findings.keep(surface.name, body, error)
        if time.process_time() - start > CPU_S:
            self._findings.keep(surface.name, body, "too slow")

    def change(self, data: bytes, limit: int, seed: int) -> bytes:
        """Change an input: a node of its tree two times of three, else bytes."""
        import atheris

        choice = random.Random(seed)
        if not data or choice.random() < 0.02:
            return bytes(atheris.Mutate(data, limit))
        form = self._surfaces[data[0] % len(self._surfaces)].form

        def by_bytes(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, max(len(part) + 64, 64)))

        made = mutated(form, data[1:], choice, self.words, by_bytes) if choice.random() < 0.67 else None
        return (data[:1] + (by_bytes(data[1:]) if made is None else made))[:limit]


def _words(seed: bytes) -> set[str]:
    """Return the strings worth trying elsewhere: whatever looks like a word in an example."""
    text = seed.decode("utf-8", "replace")
    return {word for word in "".join(c if c.isalnum() or c in "_-./" else " " for c in text).split() if len(word) < 65}


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Bound this process' address space to what it has now and `MEMORY_MB` more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_MB * 2**20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def fuzz(target: Target, options: argparse.Namespace) -> None:
    """Fuzz a target; does not return, because libFuzzer ends the process."""
    import atheris

    corpus = options.corpus or options.scratch / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = options.scratch / "words"
    words.write_text("".join(f"{json.dumps(word)}\n" for word in target.words if word.isascii()))
    settings = {
        "max_total_time": options.seconds,
        "max_len": MAX_BYTES,
        "timeout": HANG_S,
        "artifact_prefix": f"{options.findings}/crashes/{options.target}-",
        "dict": words,
        "seed": options.seed,
        "rss_limit_mb": 2048,
        "print_final_stats": 1,
    }
    (options.findings / "crashes").mkdir(exist_ok=True)
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in settings.items()), str(corpus)]
    atheris.Setup(arguments, target.run, custom_mutator=target.change)
    atheris.Fuzz()


def steered() -> contextlib.AbstractContextManager[object]:
    """Return the context in which imports are made to steer the fuzzer."""
    import atheris

    context: contextlib.AbstractContextManager[object] = atheris.instrument_imports(include=LIBRARIES)
    return context


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder, best in memory")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable()
    with steered() if options.seconds else contextlib.nullcontext():
        from campaigns.fuzzing.surfaces import surfaces_of

        surfaces = surfaces_of(options.target)
    target = Target(surfaces, options.scratch, Findings(options.findings))
    target.run_known()
    print(f"stat::number_of_known_units: {target.count}", file=sys.stderr)
    if options.seconds:
        fuzz(target, options)


if __name__ == "__main__":
    main()
