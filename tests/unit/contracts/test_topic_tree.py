"""Topics are built and parsed in one place, stay within AWS IoT Core's limits and cannot be injected into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contracts.errors import ContractError
from edge_contracts.names import NAME_PATTERN
from edge_contracts.topics import (
    DeviceAddress,
    DeviceTopic,
    all_devices,
    device_topic,
    hint_topic,
    parse_device_topic,
    shared,
)

NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
PLAIN: tuple[DeviceTopic, ...] = ("presence", "reported", "tele", "req")
NONCES = st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True)
UNFIT = ["", "a/b", "+", "#", "a+", "$SYS", "a b", "a\n", "a\x00", "ä", "x" * 65, ".."]


@given(tenant=NAMES, device=NAMES, topic=st.sampled_from(PLAIN))
def test_a_built_topic_parses_back(tenant: str, device: str, topic: DeviceTopic) -> None:
    address = DeviceAddress(tenant=tenant, device=device, topic=topic)
    assert parse_device_topic(device_topic(tenant, device, topic)) == address


@given(tenant=NAMES, device=NAMES, nonce=NONCES)
def test_a_built_reply_topic_parses_back(tenant: str, device: str, nonce: str) -> None:
    topic = device_topic(tenant, device, "rsp", nonce)
    assert parse_device_topic(topic) == DeviceAddress(tenant=tenant, device=device, topic="rsp", nonce=nonce)
    assert topic.count("/") <= 7
    assert len(topic.encode()) <= 256


@given(text=st.text(max_size=80))
def test_any_text_is_a_device_topic_or_a_typed_error(text: str) -> None:
    try:
        address = parse_device_topic(text)
    except ContractError:
        pass
    else:
        assert device_topic(address.tenant, address.device, address.topic, address.nonce) == text


@pytest.mark.parametrize("name", UNFIT)
def test_a_name_that_is_no_topic_level_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="tenant"):
        hint_topic(name)
    with pytest.raises(ContractError, match="device"):
        device_topic("default", name, "req")
    with pytest.raises(ContractError, match="tenant"):
        all_devices(name, "tele")


@pytest.mark.parametrize("nonce", ["", "a/b", "+", "#", "a\n", "x" * 65])
def test_a_nonce_cannot_widen_a_reply_topic(nonce: str) -> None:
    with pytest.raises(ContractError, match="nonce"):
        device_topic("default", "dev", "rsp", nonce)


@pytest.mark.parametrize(
    "topic",
    [
        "ew/v1/default/d/dev/rsp",
        "ew/v1/default/d/dev/req/a1",
        "ew/v1/default/d/dev/tele\n",
        "ew/v1/default\n/d/dev/tele",
        "ew/v1/default/d/+/tele",
        "ew/v1/default/d/dev/other",
        "ew/v2/default/d/dev/tele",
        "xew/v1/default/d/dev/tele",
        "$share/depot/ew/v1/default/d/dev/req",
    ],
)
def test_what_only_looks_like_a_device_topic_is_refused(topic: str) -> None:
    with pytest.raises(ContractError):
        parse_device_topic(topic)


def test_shared_and_wildcard_subscriptions_have_their_standard_form() -> None:
    assert shared("depot", all_devices("default", "req")) == "$share/depot/ew/v1/default/d/+/req"
    assert hint_topic("default") == "ew/v1/default/hint"
