"""A plain client of the agent's HTTP interface: what any program on the device would do, with the standard library."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class DemoAnswer:
    """One answer of the Open Inference Protocol: class scores [n, classes] and the response parameters."""

    scores: NDArray[np.float64]
    parameters: dict[str, Any]

    @property
    def served_by(self) -> str:
        return str(self.parameters.get("served_by"))


class Client:
    """Asks one model at one address; a connection a call, so that a lost worker costs one call."""

    def __init__(self, address: str, model: str, tensor: str) -> None:
        self._address = address.removeprefix("http://").rstrip("/")
        self._model = model
        self._tensor = tensor

    def infer(self, samples: NDArray[np.generic], *, timeout_s: float = 20.0) -> DemoAnswer:
        """Send a float32 batch as JSON tensors. Raises OSError or http.client.HTTPException when the answer is lost,
        RuntimeError when the answer is an error."""
        tensor = {
            "name": self._tensor,
            "shape": list(samples.shape),
            "datatype": "FP32",
            "data": samples.ravel().tolist(),
        }
        connection = http.client.HTTPConnection(self._address, timeout=timeout_s)
        try:
            body = json.dumps({"inputs": [tensor]})
            connection.request("POST", f"/v2/models/{self._model}/infer", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {answer}")
        output = answer["outputs"][0]
        scores = np.asarray(output["data"], dtype=np.float64).reshape(output["shape"])
        return DemoAnswer(scores=scores, parameters=answer.get("parameters", {}))

    def accuracy(self, samples: NDArray[np.generic], labels: NDArray[np.generic]) -> tuple[float, str]:
        """Return top-1 accuracy, asked sample by sample, and who served the last answer."""
        right = 0
        served_by = ""
        for sample, label in zip(samples, labels, strict=True):
            answer = self.infer(sample[None])
            right += int(answer.scores[0].argmax() == label)
            served_by = answer.served_by
        return right / len(labels), served_by


@dataclass
class Load:
    """Threads that ask all the time; counts answers and lost requests."""

    client: Client
    samples: NDArray[np.generic]
    threads: int = 3
    answered: int = 0
    failed: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._running = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(30)

    def _ask(self, number: int) -> None:
        index = number
        while not self._stop.wait(0.005):
            sample = self.samples[index % len(self.samples)][None]
            index += self.threads
            try:
                self.client.infer(sample)
                good = True
            except (OSError, http.client.HTTPException, RuntimeError):
                good = False
            with self._lock:
                self.answered += good
                self.failed += not good
