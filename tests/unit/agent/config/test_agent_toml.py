"""agent.toml: what is wrong is named by its field."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec
import pytest

from edge_agent.cli.serve import serve
from edge_agent.config.agent_toml import load_config
from edge_agent.config.profiles import load_profile, profile_names
from edge_agent.errors import ConfigError
from edge_agent.supervisor.slots.listen_socket import ListenSocket

GOOD = """
[device]
id = "dev-1"
state = "state"
[broker]
host = "localhost"
password_file = "secret"
[trust]
root = "root.json"
[[slots]]
name = "main"
channel = "prod"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_relative_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))
    assert config.state == tmp_path / "state"
    assert config.trust is not None
    assert config.trust.root == str(tmp_path / "root.json")
    assert config.broker is not None
    assert config.broker.password_file == str(tmp_path / "secret")
    assert config.slots[0].address == ("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('id = "dev-1"', 'id = "a/b"', "config.device.id"),
        ('id = "dev-1"', 'id = "dev-1"\ncolor = 1', "config.device"),
        ('host = "localhost"', "host = 7", "config.broker.host"),
        ('host = "localhost"', 'host = "x"\nprotocol = "4"', "config.broker.protocol"),
        ('host = "localhost"', 'host = "x"\nkey_file = "k"', "config.broker.key_file"),
        ('[trust]\nroot = "root.json"', "", "config.trust.root"),
        ('channel = "prod"', "", r"config.slots\[0\]"),
        ('channel = "prod"', 'channel = "prod"\nhttp = "nowhere"', r"config.slots\[0\].http"),
        ('channel = "prod"', 'channel = "prod"\n[updates]\nhttp = "ftp://x"', "config.updates.http"),
        ('channel = "prod"', 'channel = "prod"\n[updates]\npoll_s = 0', "config.updates.poll_s"),
        ('[[slots]]\nname = "main"\nchannel = "prod"', "", "config"),
    ],
)
def test_wrong_field_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}"):
        load_config(written(tmp_path, GOOD.replace(old, new)))


def test_two_slots_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"slots\[1\].name"):
        load_config(written(tmp_path, GOOD + '[[slots]]\nname = "main"\nfactory = "f"\n'))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")


def test_every_named_profile_loads() -> None:
    assert "x86-gateway" in profile_names()
    for name in profile_names():
        assert load_profile(name).name == name


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no profile named") as raised:
        load_profile("../../etc/passwd")
    assert "x86-gateway" in (raised.value.hint or "")


def test_server_listens_on_loopback_unless_told_otherwise(tmp_path: Path) -> None:
    (slot,) = load_config(written(tmp_path, GOOD)).slots
    listening = ListenSocket(msgspec.structs.replace(slot, http=f"{slot.address[0]}:0"))
    assert listening.bind()
    assert ipaddress.ip_address(listening.socket.getsockname()[0]).is_loopback
    listening.close()
    (option,) = (parameter for parameter in serve.params if parameter.name == "address")
    assert str(option.default).startswith("127.0.0.1:")
