"""A command in a network of its own, with all that it looked up, connected to and left behind written down.

    seen = watch(folder, ["-m", "edgewright.cli", "agent", "doctor", ...]); assert not seen.names

The network has loopback only, and every address there is belongs to it, so that a connection to anywhere is seen as a
packet; a DNS server answers every name with 127.0.0.2, and port 443 accepts. The command has a fresh HOME, TMPDIR and
working folder, and /tmp, /var/tmp and /dev/shm are empty but for `folder`. `ORT_DISABLE_TELEMETRY` is not set.

The second half of the module runs inside the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

VARIABLE = "ORT_DISABLE_TELEMETRY"
FIRST_REPORT_S = 12.0
"""ONNX Runtime 1.31 and 1.32 look up their maker's name 9.2 s after the import, and from then on every 5 to 10 s."""

_ROOT = Path(__file__).resolve().parents[3]
_SHARED = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
_OWN = ("home", "temporary", "here")
_NAMESPACES = ("unshare", "--net", "--mount")
_FOR_USERS = ("--user", "--map-root-user")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the command did: `names` it looked up, ports of 127.0.0.1 and others it connected or sent to, `files` it
    left outside its own folder."""

    code: int
    output: str
    names: tuple[str, ...]
    ports: tuple[int, ...]
    addresses: tuple[str, ...]
    files: tuple[str, ...]


def can_watch() -> bool:
    """Return whether this machine lets us make such a network."""
    words = [*_namespaces(), "ip", "link", "set", "lo", "up"]
    with contextlib.suppress(OSError):
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    return False


def watch(folder: Path, words: Sequence[str], *, set_to: str | None = None, ends_after_s: float | None = None) -> Seen:
    """Run `python WORDS` in the network, which sees `folder`; a command that goes on by itself is ended by SIGTERM
    after `ends_after_s`. `set_to` is what the variable is set to before. EDGEWRIGHT_TEST_PACKAGES may name a folder
    of packages, not below /tmp, that are imported instead of the installed ones."""
    own = {name: folder / name for name in _OWN}
    for path in own.values():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    given = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH")}
    paths = [os.environ.get("EDGEWRIGHT_TEST_PACKAGES", ""), str(_ROOT / "tests")]
    given |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    given |= {"HOME": str(own["home"]), "TMPDIR": str(own["temporary"])}
    if set_to is not None:
        given[VARIABLE] = set_to
    plan = json.dumps([str(folder), [sys.executable, *words], ends_after_s])
    done = subprocess.run(
        [*_namespaces(), sys.executable, __file__, plan], env=given, cwd=own["here"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode((folder / "seen.json").read_bytes(), type=Seen)


def _namespaces() -> list[str]:
    return [*_NAMESPACES, *(() if os.geteuid() == 0 else _FOR_USERS)]


# Inside the network


class _Wire:
    """Everything that goes over this network's loopback, and who answers there."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sent: set[tuple[str, int]] = set()
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        self._dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._dns.bind(("127.0.0.1", 53))
        self._tls = socket.create_server(("127.0.0.2", 443))
        for work in (self._follow, self._answer, self._accept):
            threading.Thread(target=work, daemon=True).start()

    def _follow(self) -> None:
        while True:
            data, (_, protocol, kind, *_) = self._packets.recvfrom(65535)
            if kind == socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD) and (to := _destination(data)):
                self.sent.add(to)

    def _answer(self) -> None:
        while True:
            ask, whom = self._dns.recvfrom(2048)
            labels, at = [], 12
            while ask[at]:
                labels.append(ask[at + 1 : at + 1 + ask[at]].decode())
                at += 1 + ask[at]
            self.names.append(".".join(labels))
            wants_ipv4 = ask[at + 1 : at + 3] == b"\0\1"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\2" if wants_ipv4 else b""
            counts = b"\0\1" + (b"\0\1" if wants_ipv4 else b"\0\0") + b"\0\0\0\0"
            self._dns.sendto(ask[:2] + b"\x81\x80" + counts + ask[12 : at + 5] + record, whom)

    def _accept(self) -> None:
        while True:
            connection, _ = self._tls.accept()
            connection.close()


def _destination(packet: bytes) -> tuple[str, int] | None:
    """Return where a packet that opens a TCP connection, or any of UDP, goes to; None for all others."""
    six = packet[0] >> 4 == 6
    start = 40 if six else (packet[0] & 15) * 4
    protocol, address = (packet[6], packet[24:40]) if six else (packet[9], packet[16:20])
    port = struct.unpack("!H", packet[start + 2 : start + 4])[0] if len(packet) >= start + 4 else 0
    opens = protocol == socket.IPPROTO_TCP and packet[start + 13] & 0x12 == 0x02  # SYN without ACK
    if not opens and protocol != socket.IPPROTO_UDP:
        return None
    return socket.inet_ntop(socket.AF_INET6 if six else socket.AF_INET, address), port


def _own_network(folder: Path) -> None:
    """Bring the loopback up with every address there is, our DNS server, and empty shared folders."""
    resolver = folder / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")
    with contextlib.suppress(subprocess.CalledProcessError):  # a kernel without IPv6
        _run("ip", "-6", "route", "add", "local", "::/0", "dev", "lo")
    _run("mount", "--bind", str(resolver), "/etc/resolv.conf")
    for shared in _SHARED:
        _empty(shared, [folder, _ROOT, Path(sys.prefix), Path(sys.base_prefix)])


def _empty(shared: Path, keep: Sequence[Path]) -> None:
    """Mount an empty file system at `shared`, with what has to stay bound into it again."""
    kept = [path for path in keep if path.is_relative_to(shared)]
    handles = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in kept]
    _run("mount", "-t", "tmpfs", "tmpfs", str(shared))
    for path, handle in zip(kept, handles, strict=True):
        path.mkdir(parents=True, exist_ok=True)
        _run("mount", "--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{handle}", str(path))
        os.close(handle)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _left(folder: Path) -> Iterator[str]:
    """Give the files outside the command's own folder."""
    for place in (*(folder / name for name in _OWN), *_SHARED):
        kept = (_ROOT, Path(sys.prefix), *([folder] if place in _SHARED else []))
        for path in place.rglob("*"):
            if not path.is_dir() and not any(path.is_relative_to(known) for known in kept):
                yield str(path)


def _main(folder: Path, words: list[str], ends_after_s: float | None) -> None:
    _own_network(folder)
    wire = _Wire()
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
        try:
            process.wait(ends_after_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(30)
    time.sleep(0.3)  # what was sent last has to be read
    foreign = sorted(f"{address}:{port}" for address, port in wire.sent if address not in ("127.0.0.1", "::1"))
    seen = Seen(
        code=process.returncode,
        output=log.read_text(errors="replace")[-6000:],
        names=tuple(sorted(set(wire.names))),
        ports=tuple(sorted({port for address, port in wire.sent if address in ("127.0.0.1", "::1")})),
        addresses=tuple(foreign),
        files=tuple(sorted(_left(folder))),
    )
    (folder / "seen.json").write_bytes(msgspec.json.encode(seen))


if __name__ == "__main__":
    _main(*(lambda folder, words, limit: (Path(folder), words, limit))(*json.loads(sys.argv[1])))
