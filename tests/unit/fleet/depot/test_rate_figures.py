"""What a depot gives to whom, in figures: defaults, bursts, overdrafts, and the sum over all devices."""

from __future__ import annotations

import pytest

from edge_fleet.depot.rate_limit import Pace, RequesterLimits, TokenBucket

MIB = 1024 * 1024


def test_the_pace_of_a_depot_that_is_told_none() -> None:
    pace = Pace()
    assert (pace.device_rate, pace.device_burst, pace.total_rate) == (8 * MIB, 4 * MIB, 64 * MIB)
    assert (pace.devices, pace.idle_s) == (64, 5.0)


def test_a_bucket_that_is_just_empty_waits_a_millisecond() -> None:
    bucket = TokenBucket(1000.0, 100.0, 0.0)
    assert bucket.wait(0.0) == 0.0
    bucket.take(100)
    assert bucket.wait(0.0) == 1e-3
    bucket.take(50)
    assert bucket.wait(0.0) == pytest.approx(0.05)
    assert bucket.wait(0.051) == 0.0


def test_a_device_may_take_its_burst_at_once_and_then_its_rate() -> None:
    limits = RequesterLimits(Pace(device_rate=10.0, device_burst=1000.0, total_rate=1e9), 0.0)
    assert limits.wait("a", 0.0, bulk=True) == 0.0
    limits.spend("a", 1100)
    assert limits.wait("a", 0.0, bulk=True) == pytest.approx(10.0)


def test_what_one_device_takes_is_missing_to_all() -> None:
    limits = RequesterLimits(Pace(device_rate=1e9, device_burst=1e9, total_rate=100.0), 0.0)
    assert limits.wait("a", 0.0, bulk=True) == 0.0
    limits.spend("a", 300)
    assert limits.wait("b", 0.0, bulk=True) == pytest.approx(2.0)
