"""What `test_serve_and_score.py` tests, where it takes a real process or a wait."""

import json
import os
import signal
import subprocess
import sys

from support.makers import bundles
from support.parts.serve_and_score import run_score
from support.sites.agent_process import eventually
from support.sites.worker_host import call, infer_json

_RUN = "import sys; from edge_agent.cli.serve import serve; serve(sys.argv[1:])"


def _start(*words):
    command = [sys.executable, "-u", "-c", _RUN, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_serve_says_what_it_is_answers_and_ends_cleanly_on_ctrl_c(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    process = _start(tmp_path / "b", "--http", "127.0.0.1:0", "--memory-mb", "64")
    try:
        first, second = process.stdout.readline(), process.stdout.readline()
        url = first.split(": ")[1].split("/v2/")[0]
        assert "Updates, telemetry and signature checks are off" in second
        answer = infer_json(url, [[1, 2, 3, 4]])
        assert answer["parameters"]["served_by"] == "local:1.0.0/fp32"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_serve_can_say_its_url_in_json(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    process = _start(tmp_path / "b", "--http", "127.0.0.1:0", "--json")
    try:
        found = json.loads(process.stdout.readline())
        assert found["development"] is True
        assert call(found["url"] + "/v2/health/ready") == {"ready": True}
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)


def test_serve_says_why_a_model_does_not_answer_and_serves_what_is_left(tmp_path):
    bundles.make_bundle(tmp_path / "b", models=[("bad", bundles.crash_model())], golden=None)
    process = _start(tmp_path / "b", "--http", "127.0.0.1:0", "--json")
    try:
        url = json.loads(process.stdout.readline())["url"]
        assert infer_json(url, [[1, 2, 3, 4]])["parameters"]["served_by"] == "last-resort/abstain"
        assert process.stderr.readline().startswith("local:1.0.0/bad: bad.onnx: ")
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)


def test_scoring_that_is_killed_goes_on_and_ends_with_the_same_answers(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    x, _ = bundles.samples(100)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row.tolist()) + "\n" for row in x) * 200)
    words = [str(tmp_path / "b"), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    run = "import sys; from edge_agent.cli.score import score; score(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", run, *words], stderr=subprocess.PIPE)
    out = tmp_path / "out.jsonl"
    eventually("answers", lambda: out.exists() and out.stat().st_size > 10_000)
    process.kill()
    process.communicate()
    left = out.read_bytes()
    done = json.loads(run_score(*words, "--json").stdout)
    assert done["skipped"] == left.count(b"\n") > 0
    assert done["skipped"] + done["answered"] == 20_000
    assert [json.loads(line)["index"] for line in out.read_bytes().splitlines()] == list(range(20_000))
