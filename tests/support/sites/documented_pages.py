"""The commands of README and of the how-to pages, run as they stand there in one shell for each page.

page = Page("docs/how-to/first-rollout.md", folder); page.run({"fleet", "bundles"}, broker_port)

The shell starts in a copy of the checkout. Only what would leave the test's folder is turned aside: absolute paths lead
below the folder, addresses of brokers to an embedded one without TLS, port 8080 to a free one, and the programs that
change a system (`sudo`, `systemctl`, `pip`, ...) are stand-ins that check their arguments. A command that serves until
it is stopped goes on in the background once it says that it is ready.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from support.makers import bundles
from support.sites.install_sites import ROOT

from edge_fleet.releases.release import release
from edge_fleet.signing.workspace import FleetWorkspace, NewFleet, found
from edgewright.demo.broker import free_port

PASSPHRASE = "correct horse battery staple"
SERVES = re.compile(r"edgewright (agent (run|serve)|fleet (depot|controller|enrollment)) [^&]*$")
BUDGET = "20s"
"""Time that `compress` gets, whatever the page says: its search is not what is tried here."""

READY = "ready|started, state folder|Development server"
FILE = re.compile(r"`([\w-]+\.toml)`:\n\n```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
"""A file that the reader is told to write: its name at the end of a line, and its text."""

ABSOLUTE = re.compile(r"(?<![\w.:/])/(opt|etc|usr/local|usr/share|var/lib|srv|media)/")
TLS = re.compile(r" --(ca|cert|key) \S+\.(pem|key)")
ABSENT = "systemctl useradd groupadd usermod chown apt mount ssh"
"""Programs whose stand-in does nothing: what they do is the system's, or another machine's."""

AGENT = """\
[device]
id = "dev-0001"
profile = "x86-gateway"
state = "{root}/var/lib/edgewright"
[broker]
host = "127.0.0.1"
port = {broker}
[trust]
root = "{root}/etc/edgewright/root.json"
[[slots]]
name = "wrist"
channel = "wrist"
http = "127.0.0.1:{http}"
factory = "{root}/usr/share/edgewright/wrist"
"""

STAND_INS = {
    "sudo": 'while [ "${1#-}" != "$1" ]; do [ "$1" = -u ] && shift; shift; done; exec "$@"',
    "python3": 'if [ "$1 $2" = "-m venv" ]; then for folder; do :; done; mkdir -p "$folder/bin"; '
    'cp "$STAND_INS"/{pip,edgewright} "$folder/bin"; echo > "$folder/bin/activate"; else exec "$PYTHON" "$@"; fi',
    "scp": 'target="$HOME/${2#*:}"; case "$2" in *:/*) target="$ROOT_FOLDER${2#*:}";; esac; exec cp "$1" "$target"',
    "pip": 'exec "$PYTHON" "$STAND_INS/pip.py" "$@"',
    "make": 'exec /usr/bin/env -i PATH=/usr/bin:/bin make --dry-run "$@" > /dev/null',
    "edgewright": '[ "$1" = example ] || exec "$EDGEWRIGHT" "$@"; "$EDGEWRIGHT" "$@" | sed "$EXAMPLE"',
}
PIP = """\
import re, sys, tomllib
from pathlib import Path
words = sys.argv[1:]
assert words[0] in ("install", "wheel"), words
project = tomllib.loads(Path("CHECKOUT/pyproject.toml").read_text())["project"]
for word in words[1:]:
    match = re.match(r"^(\\.|edgewright)(?:\\[([\\w,-]+)\\])?$", word)
    assert match is None or match[1] == ".", "not on a package index yet: install from a checkout"
    for extra in (match[2] or "").split(",") if match else []:
        assert not extra or extra in project["optional-dependencies"], extra
assert "-c" not in words or Path("CHECKOUT", words[words.index("-c") + 1]).exists()
"""


class Page:
    """One page and the folder in which its commands run."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.checkout = folder / "checkout"
        self._folder = folder
        self._http = free_port()
        self._root = folder / "root"
        self._home = folder / "home"

    def run(self, needs: Collection[str], broker_port: int, left_out: Collection[str] = ()) -> None:
        """Run every command of the page. `needs` are what the page begins with, `left_out` beginnings of commands that
        are not run."""
        self._prepare(needs, broker_port)
        script = ["set -eu", PRELUDE, *self._background(needs, broker_port), *self._commands(broker_port, left_out)]
        script += ["python3 block-0.py"] if "python" in needs else []
        path = self._folder / "page.sh"
        path.write_text("\n".join(script) + "\n")
        done = subprocess.run(
            ["bash", str(path)],
            cwd=self.checkout,
            env=self._environment(broker_port),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, f"{self.name}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def blocks(self) -> Iterator[tuple[str, str]]:
        """Yield language and text of the page's code blocks."""
        yield from re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / self.name).read_text(), re.DOTALL | re.MULTILINE)

    def commands(self) -> Iterator[str]:
        """Yield the page's commands as they stand there; one that goes over several lines is one."""
        for language, text in self.blocks():
            if language == "sh":
                yield from _split(text)

    def _commands(self, broker_port: int, left_out: Collection[str]) -> Iterator[str]:
        for number, text in enumerate(text for language, text in self.blocks() if language == "python"):
            (self.checkout / f"block-{number}.py").write_text(text)
        for name, text in FILE.findall((ROOT / self.name).read_text()):
            if not (self.checkout / name).exists():
                (self.checkout / name).write_text(text)
        for number, command in enumerate(self.commands()):
            if command.startswith(tuple(left_out)):
                continue
            here = self._here(command, broker_port)
            yield f"echo {shlex.quote('$ ' + command)}"
            if SERVES.search(re.sub(r"\s+#.*", "", command)):
                yield f"serve service-{number}.log {here}"
            else:
                yield here

    def _background(self, needs: Collection[str], broker_port: int) -> Iterator[str]:
        """Yield the commands that start what a page takes for running."""
        broker = f"--broker 127.0.0.1:{broker_port}"
        if "services" in needs:
            yield f"serve depot.log edgewright fleet depot ~/fleet {broker}"
            yield f"serve controller.log edgewright fleet controller ~/fleet {broker}"
        if "running" in needs:
            yield f"serve agent.log edgewright agent run --config {self._root}/etc/edgewright/agent.toml"
            yield f"curl --silent --retry 9 --retry-all-errors http://127.0.0.1:{self._http}/v2/health/ready"

    def _here(self, command: str, broker_port: int) -> str:
        """Return a command with what leads out of the folder turned aside."""
        command = ABSOLUTE.sub(lambda match: f"{self._root}{match[0]}", command)
        command = re.sub(
            r"(broker\.example\.org|localhost):(1883|8883)", f"127.0.0.1:{broker_port}", TLS.sub("", command)
        )
        if command.startswith("edgewright compress"):
            command = re.sub(r" --budget \w+", "", command) + f" --budget {BUDGET}"
        if command.startswith("edgewright fleet keys sign"):
            command += " <<< y"
        command = command.replace("-h broker.example.org -p 8883 $tls", f"-h 127.0.0.1 -p {broker_port}")
        return command.replace("127.0.0.1:8080", f"127.0.0.1:{self._http}")

    def _environment(self, broker_port: int) -> dict[str, str]:
        root = self._root
        example = [f's#"/{place}#"{root}/{place}#' for place in ("etc", "var", "usr")]
        example += [
            f"s#^port = 8883#port = {broker_port}#",
            "s#broker.example.org#127.0.0.1#",
            "s#^tls = true#tls = false#",
        ]
        example += ["s#pi-4#x86-gateway#", f"s#127.0.0.1:8080#127.0.0.1:{self._http}#", "s@^# state@state@"]
        return os.environ | {
            "HOME": str(self._home),
            "USER": "somebody",
            "PATH": f"{self._folder / 'stand-ins'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STAND_INS": str(self._folder / "stand-ins"),
            "PYTHON": sys.executable,
            "EDGEWRIGHT": str(Path(sys.executable).with_name("edgewright")),
            "EDGEWRIGHT_PASSPHRASE_FILE": str(self._home / "passphrase"),
            "EXAMPLE": "; ".join(example),
            "READY": READY,
            "ROOT_FOLDER": str(root),
        }

    def _prepare(self, needs: Collection[str], broker_port: int) -> None:
        tracked = (
            "Makefile",
            "pyproject.toml",
            "constraints.txt",
            "README.md",
            "firmware_configs",
            "edgewright/demo/data",
        )
        for name in tracked:
            target = self.checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
        for place in (
            "etc/mosquitto/certs",
            "etc/edgewright",
            "etc/systemd/system",
            "var/lib/private/edgewright",
            "var/lib/edgewright",
            "usr/local/bin",
            "opt",
        ):
            (self._root / place).mkdir(parents=True)
        self._home.mkdir()
        (self._home / "passphrase").write_text(PASSPHRASE)
        (self._home / "passphrase").chmod(0o600)
        (self.checkout / "phrase.txt").write_text(PASSPHRASE)
        (self.checkout / "phrase.txt").chmod(0o600)
        self._write_stand_ins()
        for need in ("fleet", "bundles", "releases", "rollout", "authority", "agent", "task", "plan", "ceremony"):
            if need in needs:
                getattr(self, f"_make_{need}")(broker_port)

    def _write_stand_ins(self) -> None:
        folder = self._folder / "stand-ins"
        folder.mkdir()
        clients = [name for name in ("mosquitto_pub", "mosquitto_sub") if shutil.which(name) is None]
        for name, text in (STAND_INS | dict.fromkeys([*ABSENT.split(), *clients], "exit 0")).items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        (folder / "pip.py").write_text(PIP.replace("CHECKOUT", str(self.checkout)))

    def _make_fleet(self, broker_port: int) -> None:
        found(self._home / "fleet", NewFleet(families=("har", "doorbell")), datetime.now(UTC))
        shutil.copy(self._home / "fleet" / "root.json", self._root / "etc/edgewright/root.json")
        shutil.copy(self._home / "fleet" / "root.json", self.checkout / "root.json")

    def _make_bundles(self, broker_port: int) -> None:
        for name, version in (
            ("bundle", "1.0.0"),
            ("bundle-1.1.0", "1.1.0"),
            ("build/har-1.0.0", "1.0.0"),
            ("build/har-1.1.0", "1.1.0"),
        ):
            bundles.make_bundle(self.checkout / name, name="har", version=version)

    def _make_releases(self, broker_port: int) -> None:
        for version in ("1.0.0", "1.0.3", "1.1.0"):
            folder = self._folder / f"released-{version}"
            bundles.make_bundle(folder, name="har", version=version)
            release(FleetWorkspace(self._home / "fleet"), folder, datetime.now(UTC))

    def _make_authority(self, broker_port: int) -> None:
        program = str(Path(sys.executable).with_name("edgewright"))
        fleet = self._home / "fleet"
        subprocess.run([program, "fleet", "authority", "init", str(fleet)], check=True, capture_output=True)

    def _make_agent(self, broker_port: int) -> None:
        bundles.make_bundle(self._root / "usr/share/edgewright/wrist", name="wrist", version="0.1.0")
        text = AGENT.format(root=self._root, broker=broker_port, http=self._http)
        (self._root / "etc/edgewright/agent.toml").write_text(text)
        (self.checkout / "agent.toml").write_text(text)

    def _make_plan(self, broker_port: int) -> None:
        plan = next(text for language, text in self.blocks() if language == "toml")
        (self.checkout / "plan.toml").write_text(plan)

    def _make_rollout(self, broker_port: int) -> None:
        program, fleet = str(Path(sys.executable).with_name("edgewright")), str(self._home / "fleet")
        words = ["fleet", "rollout", "start", fleet, "--model", "har", "--version", "1.0.0", "--channel", "wrist"]
        subprocess.run([program, *words], check=True, capture_output=True)

    def _make_ceremony(self, broker_port: int) -> None:
        program = str(Path(sys.executable).with_name("edgewright"))
        for name in ("bob", "carol"):
            words = [program, "fleet", "keys", "create", str(self._home / "root-key"), name]
            words += ["--passphrase-file", str(self._home / "passphrase")]
            subprocess.run(words, check=True, capture_output=True)
            shutil.copy(self._home / "root-key" / f"{name}.pub", self._home / "fleet" / "keys")

    def _make_task(self, broker_port: int) -> None:
        data = ROOT / "edgewright" / "demo" / "data"
        shutil.copy(data / "watch_har.onnx", self.checkout / "har.onnx")
        shutil.copy(data / "watch_har.npz", self.checkout / "har.npz")
        text = (data / "watch_har.toml").read_text().replace("watch_har", "har")
        for name in ("har.toml", "task.toml"):
            (self.checkout / name).write_text(text)


PRELUDE = """\
trap 'code=$?; echo "failed: $BASH_COMMAND" >&2; exit $code' ERR
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
AGENT_PID=
serve() {
  log=$1; shift
  case "$*" in *" agent "*) [ -z "$AGENT_PID" ] || { kill "$AGENT_PID"; wait "$AGENT_PID" || true; };; esac
  "$@" > "$log" 2>&1 &
  case "$*" in *" agent "*) AGENT_PID=$!;; esac
  for _ in $(seq 300); do
    if grep -qE "$READY" "$log"; then return 0; fi
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  cat "$log" >&2; return 1
}
"""


def _split(block: str) -> Iterator[str]:
    """Yield the commands of a block: lines belong together while a quote, a backslash or a loop is open."""
    held = ""
    for line in block.splitlines():
        held = f"{held}\n{line}" if held else line
        if held.rstrip().endswith("\\") or _is_open(held):
            continue
        if held.strip() and not held.strip().startswith("#"):
            yield held.strip()
        held = ""


def _is_open(command: str) -> bool:
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return True
    return words.count("do") > words.count("done")
