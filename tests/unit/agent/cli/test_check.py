"""`edgewright agent check` tells what doctor tells, as far as nobody else has to be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.makers import bundles
from support.parts.device_files import UNIT

from edge_agent.cli.agent import agent
from edge_agent.cli.doctor.finding import Target
from edge_agent.cli.doctor.service_checks import HIDDEN, UNIT_STATE, _closed, _service, _status_group, unreadable
from edge_agent.config.agent_toml import missing_files, parse_config
from edge_agent.host.sensors import architecture


def config_of(folder: Path, device: str = "", slot: str = "") -> Path:
    bundles.make_bundle(folder / "factory")
    path = folder / "agent.toml"
    path.write_text(
        f'[device]\nid = "dev-1"\nstate = "{folder / "state"}"\n{device}\n'
        f'[[slots]]\nname = "main"\nfactory = "{folder / "factory"}"\n{slot}\n'
    )
    return path


def check(path: Path, *more: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(agent, ["check", "--config", str(path), *more])
    return done.exit_code, done.stdout, done.stderr


def test_a_good_configuration_ends_with_zero(tmp_path: Path) -> None:
    code, out, _ = check(config_of(tmp_path))
    assert code == 0, out
    assert "dev-1" in out


def test_what_is_wrong_is_said_with_its_remedy_and_ends_with_one(tmp_path: Path) -> None:
    other = "pi-4" if architecture() != "aarch64" else "x86-gateway"
    path = config_of(tmp_path, f'profile = "{other}"\nstatus_group = "nobody-has-this"', "threads = 256")
    code, _, told = check(path)
    assert code == 1
    assert f"Failure: board: profile {other} is for" in told
    assert "no group 'nobody-has-this'" in told
    assert "groupadd" in told
    assert "Warning: limits: slot main wants 256 threads" in told
    code, out, _ = check(path, "--json")
    assert code == 1
    assert [problem.split(":")[0] for problem in json.loads(out)["problems"]] == ["board", "status group"]


def test_a_factory_bundle_no_engine_can_run_is_named_as_doctor_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.cli.doctor.device_checks.installed_engines", lambda: {"litert": "2.0"})
    code, _, told = check(config_of(tmp_path))
    assert code == 1
    assert "Failure: factory bundle of main: none of its variants can run" in told


def under_the_unit(root: str) -> Target:
    config = parse_config(
        {
            "device": {"id": "dev-1", "state": UNIT_STATE},
            "trust": {"root": root},
            "slots": [{"name": "main", "channel": "main"}],
        }
    )
    return Target(config=config, now=0.0)


def test_files_that_the_shipped_unit_hides_are_named_before_it_runs(tmp_path: Path) -> None:
    """Root sees the file, the service does not: it would end with "file not found" and nobody would know why."""
    root = tmp_path / "root.json"
    root.write_text("{}")
    (found,) = _service(under_the_unit(str(root)))
    assert found.verdict == "failure"
    assert found.text.startswith("config.trust.root: the service cannot read /")
    assert "/etc/edgewright" in (found.fix or "")


def test_the_unit_hides_what_the_check_says_it_does() -> None:
    unit = UNIT.read_text().splitlines()
    assert {"PrivateTmp=yes", "ProtectHome=yes", f"StateDirectory={Path(UNIT_STATE).name}", "DynamicUser=yes"} <= set(
        unit
    )
    assert set(HIDDEN) == {"/home", "/root", "/run/user", "/tmp", "/var/tmp"}


def test_a_file_that_only_root_can_read_and_a_folder_nobody_else_may_enter(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    path.write_text("{}")
    path.chmod(0o644)
    assert _closed(path, whole=True) is None
    path.chmod(0o600)
    assert "root.json: its mode is 0600" in (_closed(path, whole=True) or "")
    tmp_path.chmod(0o711)
    assert _closed(tmp_path, whole=False) is None, "passing through is enough"
    assert "mode is 0711" in (_closed(tmp_path, whole=True) or "")


def test_secrets_that_systemd_hands_over_are_not_missing_while_nothing_runs() -> None:
    given = "/run/credentials/edgewright-agent.service/device.key"
    broker = {"host": "b", "certificate_file": "/etc/edgewright/none.pem", "key_file": given}
    config = parse_config({"device": {"id": "d"}, "broker": broker, "slots": [{"name": "main", "factory": "f"}]})
    assert missing_files(config) == {"config.broker.certificate_file": "/etc/edgewright/none.pem"}
    assert unreadable(Path(given)) is None


def test_a_status_group_that_is_there_is_nothing_to_tell() -> None:
    config = parse_config({"device": {"id": "d", "status_group": "root"}, "slots": [{"name": "main", "factory": "f"}]})
    assert list(_status_group(Target(config=config, now=0.0))) == []
