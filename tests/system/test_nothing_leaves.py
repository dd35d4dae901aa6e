"""No command looks up a name, connects to anything but its broker, or leaves a file outside its folders.

Each runs in a network of its own (`support.boxes.watched_network`) in which ORT_DISABLE_TELEMETRY is not set, so that
the product has to set it. ONNX Runtime writes into HOME when it is imported and looks its maker's name up after 9 s:
what ends sooner is judged by the files. `EDGEWRIGHT_TEST_PACKAGES=FOLDER` puts another engine version first.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from support.boxes.watched_commands import GROUPS, Line
from support.boxes.watched_network import FIRST_REPORT_S, Seen, can_watch, watch
from support.makers import bundles, pipelines
from support.sites.agent_process import AgentProcess
from support.sites.update_site import UpdateSite

from edge_agent.capture.record import captured_request, encode_captured
from edge_agent.capture.ring import CaptureRing
from edge_agent.capture.sealing import PRIVATE_NAME, PUBLIC_NAME, load_sealer, make_keys
from edge_agent.inference.runtime import Runtime
from edge_contracts.channel import Gates

pytestmark = [
    pytest.mark.skipif(not can_watch(), reason="no network namespace can be made here"),
    pytest.mark.timeout(240),
]

CLI = ("-m", "edgewright.cli")
TASK = Path(__file__).resolve().parents[2] / "edgewright/demo/data/watch_har.toml"
PORT = 8099
REPORTS = tuple(map(int, metadata.version("onnxruntime").split(".")[:2])) >= (1, 29)
OPEN = """
import sys, time
from edge_agent import Runtime
import numpy as np
with Runtime.open(sys.argv[1]) as runtime:
    runtime.infer({"x": np.ones((1, 4), np.float32)})
    time.sleep(float(sys.argv[2]))
"""


SILENT_PORT = 8098
PLAN = """
channel = "main"
model = "cam"
version = "1.0.0"
observe_s = 0.5
[device]
soak_s = 0.5
[[steps]]
kind = "wave"
percent = 100
"""
ENROLLING = """
[device]
id = "dev-1"
state = "{folder}/enrolling"
[trust]
root = "{folder}/named/root.json"
[broker]
host = "127.0.0.1"
port = {port}
tls = true
identity = "{folder}/identity"
[[slots]]
name = "main"
channel = "stable"
http = "127.0.0.1:0"
"""
SCENARIO = "connects_per_s = 100\ntrial_s = 0.1\nrelease_bytes = 20000\n"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    bundles.make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def config(tmp_path: Path, bundle: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[device]\nid = "dev-1"\nstate = "{tmp_path / "state"}"\n'
        f'[[slots]]\nname = "main"\nfactory = "{bundle}"\nhttp = "127.0.0.1:{PORT}"\n'
    )
    return path


def assert_nothing_left(seen: Seen, *, code: int = 0) -> None:
    assert seen.code == code, seen.output
    assert seen.names == (), seen
    assert seen.addresses == (), seen
    assert seen.files == (), seen


def test_agent_without_a_broker_opens_no_connection_and_writes_into_its_state_folder_only(
    tmp_path: Path, config: Path
) -> None:
    seen = watch(tmp_path, [*CLI, "agent", "run", "--config", str(config)], ends_after_s=3.0 + FIRST_REPORT_S)
    assert_nothing_left(seen)
    assert seen.ports == ()
    assert (tmp_path / "state" / "cache").is_dir()


def test_development_server_opens_no_connection(tmp_path: Path, bundle: Path) -> None:
    words = [*CLI, "agent", "serve", str(bundle), "--http", "127.0.0.1:0"]
    assert_nothing_left(watch(tmp_path, words, ends_after_s=3.0 + FIRST_REPORT_S))


def test_runtime_in_a_users_program_opens_no_connection(tmp_path: Path, bundle: Path) -> None:
    assert_nothing_left(watch(tmp_path, ["-W", "error", "-c", OPEN, str(bundle), str(FIRST_REPORT_S)]))


def test_user_who_imported_onnxruntime_first_is_warned_that_it_may_report(tmp_path: Path, bundle: Path) -> None:
    seen = watch(tmp_path, ["-c", "import onnxruntime" + OPEN, str(bundle), "0"])
    assert "import edge_agent first" in seen.output
    told = watch(tmp_path, ["-W", "error", "-c", "import onnxruntime" + OPEN, str(bundle), "0"], set_to="1")
    assert_nothing_left(told)


def test_an_empty_variable_does_not_mean_that_reports_are_wanted(tmp_path: Path, bundle: Path) -> None:
    assert_nothing_left(watch(tmp_path, ["-c", OPEN, str(bundle), "0"], set_to=""))


def run_lines(folder: Path, lines: Sequence[Line]) -> None:
    """Run each in a watched network; a name, an address but its broker's or a file fails and names the command."""
    for line in lines:
        words = line.words.format(here=folder, port=SILENT_PORT).split()
        seen = watch(folder, [*CLI, *words], ends_after_s=line.ends_after_s)
        told = f"{line.words}: {seen}"
        assert (seen.code, seen.names, seen.addresses, seen.files) == (line.code, (), (), ()), told
        assert line.talks_here or set(seen.ports) <= {SILENT_PORT}, told


@pytest.mark.parametrize("group", [name for name in GROUPS if name != "beside an agent"])
def test_every_other_command_leaves_nothing(tmp_path: Path, config: Path, group: str) -> None:
    assert config.exists()
    pipelines.make_chain(tmp_path / "parts")
    (tmp_path / "in.jsonl").write_text('{"x": [1, 0, 0, 0]}\n')
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "enrolling.toml").write_text(ENROLLING.format(folder=tmp_path, port=SILENT_PORT))
    run_lines(tmp_path, GROUPS[group])


def test_commands_beside_a_running_agent_leave_nothing(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.2))
    with AgentProcess(tmp_path, site) as agent:
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        run_lines(tmp_path, GROUPS["beside an agent"])


@pytest.mark.parametrize("command", ["doctor", "check", "status"])
def test_looking_at_the_agent_leaves_nothing(tmp_path: Path, config: Path, command: str) -> None:
    assert_nothing_left(watch(tmp_path, [*CLI, "agent", command, "--config", str(config)]))


def test_score_and_bench_leave_nothing(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x": [1, 0, 0, 0]}\n')
    score = [*CLI, "agent", "score", str(bundle), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    assert_nothing_left(watch(tmp_path, score))
    assert_nothing_left(watch(tmp_path, [*CLI, "bench", str(bundle), "--seconds", "0.2"]))


def test_replay_leaves_nothing(tmp_path: Path, bundle: Path) -> None:
    make_keys(tmp_path, None)
    ring = CaptureRing(tmp_path / "captures", load_sealer(tmp_path / PUBLIC_NAME), 1024 * 1024)
    tensors = {"x": bundles.samples(1)[0]}
    with Runtime.open(bundle) as runtime:
        ring.write(encode_captured(captured_request(tensors, runtime.infer(tensors), 1.7e9)))
    ring.close()
    words = ["--release", str(bundle), "--key", str(tmp_path / PRIVATE_NAME), str(tmp_path / "captures")]
    assert_nothing_left(watch(tmp_path, [*CLI, "agent", "replay", *words]))


def test_compress_with_the_shipped_task_leaves_nothing(tmp_path: Path) -> None:
    options = ["--profile", "x86-gateway", "--max-drop", "2", "--out", str(tmp_path / "out"), "--variations", "0"]
    assert_nothing_left(watch(tmp_path, [*CLI, "compress", str(TASK), *options]))


def test_demonstration_talks_to_its_own_broker_only(tmp_path: Path) -> None:
    """Compress, release, depot, controller, agent, updater, preflight, trial, worker, soak and roll back."""
    seen = watch(tmp_path, [*CLI, "demo", "--report", str(tmp_path / "report.json")])
    assert_nothing_left(seen)


@pytest.mark.skipif(not REPORTS, reason="this onnxruntime does not report")
def test_the_watch_sees_what_onnxruntime_does_by_itself(tmp_path: Path) -> None:
    words = ["-c", f"import onnxruntime, time; time.sleep({FIRST_REPORT_S})"]
    seen = watch(tmp_path, words)
    assert any(".onnxruntime" in file for file in seen.files), seen
