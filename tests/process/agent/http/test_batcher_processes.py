"""What `test_batcher.py` tests, where it takes a real process or a wait."""

import json
import threading
import urllib.request

import numpy as np
from support.makers import bundles
from support.parts.batcher import ROWS
from support.sites.worker_host import HostedWorker, ladder_of, listening_socket, url_of, wait_until

from edge_agent.config.inference_options import Batching


def test_a_worker_batches_what_comes_over_http(tmp_path):
    bundle = bundles.make_bundle(tmp_path / "b")
    with listening_socket() as listening:
        worker = HostedWorker(listening, ladder_of(bundle), batch=Batching(max=4, wait_ms=100.0))
        worker.ready()
        url = url_of(listening) + "/v2/models/linear/infer"
        found = {}

        def ask(index):
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROWS[index].ravel().tolist()}
            with urllib.request.urlopen(url, json.dumps({"inputs": [tensor]}).encode(), timeout=20) as response:
                found[index] = json.loads(response.read())["outputs"][0]["data"]

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, scores in found.items():
            np.testing.assert_allclose(scores, (ROWS[index] @ bundles.WEIGHTS).ravel(), rtol=1e-5)
        assert len(found) == 8
        wait_until(lambda: worker.flight.in_flight == 0)
        worker.close()
