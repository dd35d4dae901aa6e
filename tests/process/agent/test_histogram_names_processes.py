"""What `test_histogram_names.py` tests, where it takes a real process or a wait."""

import json
from urllib.request import Request, urlopen

import pytest
from support.makers.referenced_bundles import make_referenced_bundle
from support.parts.histogram_names import BASES, X, seen_by_tag
from support.sites.worker_host import HostedWorker, call, ladder_of, listening_socket, url_of

from edge_agent.config.inference_options import Batching
from edge_agent.ipc.worker import Heartbeat

# A worker


@pytest.mark.parametrize("batch", [None, Batching(max=2, wait_ms=1.0)], ids=["alone", "batched"])
def test_a_worker_reports_what_it_sees_of_each_tag(tmp_path, batch):
    bundle = make_referenced_bundle(tmp_path / "b")
    with listening_socket() as listening:
        worker = HostedWorker(listening, ladder_of(bundle), batch=batch)
        try:
            worker.ready()
            url = url_of(listening) + "/v2/models/linear/infer"
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
            call(url, {"inputs": [tensor | {"data": X[0].ravel().tolist()}], "parameters": {"tag": "line-1"}})
            call(url, {"inputs": [tensor | {"data": X[0].ravel().tolist()}], "parameters": {}})
            sized = tensor | {"parameters": {"binary_data_size": X[0].nbytes}}
            head = json.dumps({"inputs": [sized], "parameters": {"tag": "line-2"}}).encode()
            lengths = {"inference-header-content-length": str(len(head))}
            urlopen(Request(url, head + X[0].tobytes(), lengths), timeout=20).close()
            beat = worker.hear(Heartbeat, lambda beat: beat.counters["requests"] == 3)
        finally:
            worker.close()
    assert seen_by_tag(beat.histograms) == {"": 1, "line-1": 1, "line-2": 1}
    assert {name for name in beat.histograms if name.endswith("@line-2")} == {f"{name}@line-2" for name in BASES}
