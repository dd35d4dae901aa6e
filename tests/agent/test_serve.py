"""The commands `serve` and `score`: a bundle on this machine, without a fleet."""

import json
import os
import signal
import subprocess
import sys

import bundle_maker
import pytest
from click.testing import CliRunner
from worker_host import call, infer_json

from edge_agent.serving_cli import score, serve
from edge_contracts.errors import BundleError, OperatorError

_RUN = "import sys; from edge_agent.serving_cli import serve; serve(sys.argv[1:])"


def _start(*words):
    command = [sys.executable, "-u", "-c", _RUN, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_serve_says_what_it_is_answers_and_ends_cleanly_on_ctrl_c(tmp_path):
    bundle_maker.make_bundle(tmp_path / "b")
    process = _start(tmp_path / "b", "--http", "127.0.0.1:0", "--memory-mb", "64")
    try:
        first, second = process.stdout.readline(), process.stdout.readline()
        url = first.split(": ")[1].split("/v2/")[0]
        assert "updates, telemetry and signature checks are off" in second
        answer = infer_json(url, [[1, 2, 3, 4]])
        assert answer["parameters"]["served_by"] == "local:1.0.0/fp32"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_serve_can_say_its_url_in_json(tmp_path):
    bundle_maker.make_bundle(tmp_path / "b")
    process = _start(tmp_path / "b", "--http", "127.0.0.1:0", "--json")
    try:
        found = json.loads(process.stdout.readline())
        assert found["development"] is True
        assert call(found["url"] + "/v2/health/ready") == {"ready": True}
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "192.0.2.1:0", ":x"])
def test_an_address_that_cannot_be_is_named(tmp_path, address):
    bundle_maker.make_bundle(tmp_path / "b")
    with pytest.raises(OperatorError, match="--http"):
        CliRunner().invoke(serve, [str(tmp_path / "b"), "--http", address], catch_exceptions=False)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json"):
        CliRunner().invoke(serve, [str(tmp_path)], catch_exceptions=False)


def test_serve_says_why_a_model_does_not_answer_and_serves_what_is_left(tmp_path):
    bundle_maker.make_bundle(tmp_path / "b", models=[("bad", bundle_maker.crash_model())], golden=None)
    process = _start(tmp_path / "b", "--http", "127.0.0.1:0", "--json")
    try:
        url = json.loads(process.stdout.readline())["url"]
        assert infer_json(url, [[1, 2, 3, 4]])["parameters"]["served_by"] == "last-resort/abstain"
        assert process.stderr.readline().startswith("local:1.0.0/bad: bad.onnx: ")
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)


def _score(*words):
    return CliRunner().invoke(score, [str(word) for word in words], catch_exceptions=False)


def test_jsonl_and_csv_give_the_same_classes(tmp_path):
    bundle_maker.make_bundle(tmp_path / "b", labels=("left", "middle", "right"))
    x, y = bundle_maker.samples(20)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in x))
    (tmp_path / "in.csv").write_text("a,b,c,d\n" + "".join(",".join(map(repr, row.tolist())) + "\n" for row in x))
    for name in ("in.jsonl", "in.csv"):
        done = _score(tmp_path / "b", tmp_path / name, tmp_path / f"{name}.out", "--json")
        assert json.loads(done.stdout) == {"skipped": 0, "answered": 20, "failed": 0}
        lines = [json.loads(line) for line in (tmp_path / f"{name}.out").read_text().splitlines()]
        assert [line["index"] for line in lines] == list(range(20))
        assert [("left", "middle", "right").index(line["class"]) for line in lines] == y.tolist()


def test_a_torn_output_is_continued_where_it_was_whole(tmp_path):
    bundle_maker.make_bundle(tmp_path / "b")
    x, _ = bundle_maker.samples(10)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row.tolist()) + "\n" for row in x))
    _score(tmp_path / "b", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    whole = (tmp_path / "out.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:7])
    done = _score(tmp_path / "b", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--json")
    assert json.loads(done.stdout) == {"skipped": 4, "answered": 6, "failed": 0}
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_a_sample_that_does_not_fit_is_a_line_with_its_error_and_the_rest_goes_on(tmp_path):
    bundle_maker.make_bundle(tmp_path / "b")
    (tmp_path / "in.jsonl").write_text('[1,2,3]\n{broken\n{"z":[1]}\n["a"]\n[1,2,3,4]\n')
    with pytest.raises(OperatorError, match="4 samples did not fit"):
        _score(tmp_path / "b", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["error" in line for line in lines] == [True, True, True, True, False]
    with pytest.raises(OperatorError, match="score"):
        _score(tmp_path / "b", tmp_path / "gone.jsonl", tmp_path / "out2.jsonl")
