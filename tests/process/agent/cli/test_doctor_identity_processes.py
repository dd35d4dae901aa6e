"""What `test_doctor_identity.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

from pathlib import Path

from support.brokers.brokers import EmbeddedBroker
from support.parts.doctor_identity import BEGIN, NOBODY, device

from edge_agent.cli.doctor.device_checks import examine
from edge_agent.cli.doctor.finding import Target


def test_broker_of_the_data_topics_is_looked_at_on_its_own(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        there = {"host": "127.0.0.1", "port": broker.port, "protocol": "3.1.1"}
        config = device(tmp_path, broker=NOBODY, data={"broker": there})
        findings = list(examine(Target(config=config, now=BEGIN)))
    verdicts = {finding.check: finding.verdict for finding in findings}
    assert (verdicts["broker"], verdicts["data broker"]) == ("failure", "ok")
