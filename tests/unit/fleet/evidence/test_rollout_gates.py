"""What gates observe of a device, and the verdict over all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_contracts.errors import ContractError
from edge_contracts.shadow import ShadowCounts
from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.evidence.gates import EvidenceBook, Observation, gate_rules, measure

TIME = "2026-11-22T06:00:00Z"


def window(**values: Any) -> TelemetryWindow:
    return TelemetryWindow(device="d", boot_id="b", sequence=0, start=TIME, end=TIME, slot="main", **values)


def outcome(number: int, failed: bool) -> Observation:
    return Observation(gate="failures", device=f"d{number}", value=float(failed))


def book(first: int = 0, **gates: float) -> EvidenceBook:
    return EvidenceBook(gate_rules({"failures": 0.05} | gates), 0.01, first)


def test_a_release_that_fails_on_one_device_in_three_is_stopped_after_few() -> None:
    judged, failed = book(), 0
    for number in range(60):
        judged.add(outcome(number, number % 3 == 0))
        failed += number % 3 == 0
        if judged.verdict().stops:
            break
    assert judged.verdict().violated == ("failures",)
    assert failed <= 8


def test_failures_within_what_is_allowed_never_stop() -> None:
    judged = book()
    for number in range(2000):
        judged.add(outcome(number, number % 25 == 24))
        assert not judged.verdict().stops


def test_the_first_devices_all_failing_stops_at_once() -> None:
    judged = EvidenceBook(gate_rules({"failures": 0.5}), 0.001, 3)
    for number in range(2):
        judged.add(outcome(number, True))
        assert not judged.verdict().stops
    judged.add(outcome(2, True))
    assert judged.verdict().broken
    assert judged.verdict().violated == ()


def test_one_of_the_first_devices_passing_leaves_it_to_the_evidence() -> None:
    judged = EvidenceBook(gate_rules({"failures": 0.5}), 0.001, 3)
    for number, failed in enumerate((True, False, True, True)):
        judged.add(outcome(number, failed))
    assert not judged.verdict().stops


def test_a_slower_release_is_found_by_its_devices() -> None:
    judged = book(latency=1.1)
    for number in range(200):
        judged.add(Observation(gate="latency", device=f"d{number}", value=math.log2(1.6)))
        if judged.verdict().stops:
            break
    assert judged.verdict().violated == ("latency",)
    assert judged.verdict().gates["latency"].count < 40


def test_an_observation_of_a_gate_that_is_not_judged_is_ignored() -> None:
    judged = book()
    judged.add(Observation(gate="latency", device="d", value=1.0))
    assert set(judged.verdict().gates) == {"failures"}


@pytest.mark.parametrize(
    ("gates", "subject"),
    [({"speed": 1.0}, "gates.speed"), ({"latency": 0.9}, "gates.latency"), ({"failures": 1.0}, "gates.failures")],
)
def test_a_gate_that_is_none_or_cannot_have_its_limit_is_named(gates: dict[str, float], subject: str) -> None:
    with pytest.raises(ContractError, match=subject):
        gate_rules(gates)


def test_a_share_is_of_the_requests() -> None:
    windows = [window(counters={"requests": 30, "abstained": 3}), window(counters={"requests": 70, "abstained": 7})]
    assert measure("abstained", windows) == pytest.approx(0.1)
    assert measure("counter.abstained", windows) == pytest.approx(0.1)


def test_too_few_requests_say_nothing() -> None:
    assert measure("abstained", [window(counters={"requests": 19, "abstained": 19})]) is None
    assert measure("latency", [window(latency_log2_us=(0, 19))]) is None
    assert measure("drift", [window()]) is None


def test_latency_is_the_mean_binary_logarithm() -> None:
    assert measure("latency", [window(latency_log2_us=(0, 10, 10))]) == pytest.approx(2.0)


def test_drift_is_the_share_of_windows_with_an_alarm() -> None:
    assert measure("drift", [window(drift={"x": 1.1, "y": 0.2}), window(drift={"x": 1.0}), window()]) == 0.5


def test_disagreement_is_of_what_had_classes() -> None:
    counts = ShadowCounts(version="1.1.0", manifest_sha256="a" * 64, compared=50, classified=40, agreed=30)
    assert measure("disagreement", [window(shadow=counts)]) == pytest.approx(0.25)
