"""The data topics that the pages and the example configuration name are allowed by the ACL lines that they give."""

from __future__ import annotations

import re
import tomllib

import pytest
from support.parts.device_files import CONFIGS
from support.sites.install_sites import ROOT

DEVICE = "dev-0001"
PAGE = (ROOT / "docs/how-to/mqtt-data.md").read_text()
ACL = (CONFIGS / "mosquitto/acl").read_text()


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def matches(pattern: str, topic: str) -> bool:
    levels, asked = pattern.split("/"), topic.split("/")
    if levels[-1] == "#":
        return len(asked) >= len(levels) - 1 and matches("/".join(levels[:-1]), "/".join(asked[: len(levels) - 1]))
    return len(levels) == len(asked) and all(a in ("+", b) for a, b in zip(levels, asked, strict=True))


def allowed(acl: str, access: str, topic: str, *, user: str | None = None) -> bool:
    """Return whether a device, or another user, has that right; Mosquitto's rules for pattern, user and topic."""
    whose: str | None = None
    for line in acl.splitlines():
        words = line.split()
        if words[:1] == ["user"]:
            whose = words[1]
        granted = words[:1] == ["pattern"] or (words[:1] == ["topic"] and user is not None and whose == user)
        if granted and words[1] in (access, "readwrite") and matches(words[2].replace("%u", user or DEVICE), topic):
            return True
    return False


def page_acl() -> str:
    (found,) = blocks(PAGE, "conf")
    return found


def page_topics() -> dict[str, str]:
    (found,) = blocks(PAGE, "toml")
    topics: dict[str, str] = tomllib.loads(found)["slots"][0]["mqtt"]
    return topics


def test_devices_of_the_page_may_read_their_inputs_and_write_their_answers() -> None:
    topics, acl = page_topics(), page_acl()
    assert allowed(acl, "read", topics["input"])
    for topic in (topics["output"], f"{topics['output']}/error", f"{topics['output']}/dashboard"):
        assert allowed(acl, "write", topic)
        assert topic in PAGE
    assert not allowed(acl, "read", topics["input"].replace(DEVICE, "dev-0002"))


def test_whoever_asks_in_the_page_may_do_so() -> None:
    topics, acl = page_topics(), page_acl()
    assert allowed(acl, "write", topics["input"], user="sensor-1")
    assert allowed(acl, "read", topics["output"], user="sensor-1")
    commands = "".join((*blocks(PAGE, "sh"), *blocks(PAGE, "python")))
    named = re.findall(r"(?:-t |single\()['\"]?([\w/#-]+)", commands)
    assert len(named) == 3
    assert all(topic.startswith((topics["input"], f"answers/{DEVICE}")) for topic in named)
    assert "fleet authority client ~/fleet sensor-1" in commands


@pytest.mark.parametrize(("field", "access"), [("input", "read"), ("output", "write")])
def test_the_example_configuration_fits_the_lines_that_wait_in_the_shipped_acl(field: str, access: str) -> None:
    text = (CONFIGS / "agent.toml").read_text()
    (topic,) = re.findall(rf'^# {field} = "([^"]+)"', text, flags=re.MULTILINE)
    assert f'id = "{DEVICE}"' in text
    waiting = "\n".join(line.removeprefix("#") for line in ACL.splitlines() if line.startswith("#pattern"))
    assert allowed(waiting, access, topic)
    assert not allowed(ACL, access, topic), "not before somebody wants data topics"
