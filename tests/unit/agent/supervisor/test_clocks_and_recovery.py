"""Clocks that are wrong; versions and times that a thief pushed ahead: the device gets out, and nobody gets in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.makers.forged_metadata import Forger
from support.sites.update_site import CHANNEL, UpdateSite, names, troubles

from edge_agent.ipc.updater import Offer
from edge_agent.updater.transports.directory import DirectoryTransport
from edge_contracts.channel import Channel, channel_target, next_serial, parse_channel
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_SERIAL
from edge_fleet.rollouts.rollout import read_channel
from edge_fleet.signing.ceremony import apply, propose, sign_proposal, start
from edge_fleet.signing.key_changes import Draft, replace

ONLINE = ("rollouts", "snapshot", "timestamp")
FAR = 2**31


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0")
    assert names(site.look())[-1] == "Stored"
    return site


def rotate(site: UpdateSite, *roles: str) -> None:
    """Put new keys in place of the roles' keys, as the root keys allow."""
    chosen = {role: site.fleet.keys.free_name(role) for role in roles}
    site.fleet.keys.create(chosen.values())

    def edit(draft: Draft) -> None:
        for role, name in chosen.items():
            replace(draft, role, site.fleet.keys.public(name))

    change(site, edit)


def change(site: UpdateSite, edit: Callable[[Draft], None], renew: tuple[str, ...] = ()) -> None:
    """Change keys on the fleet's side; the device keeps the root it was installed with."""
    fleet = site.fleet
    installed = (fleet.path / "root.json").read_bytes()
    proposal = propose(start(fleet.read(site.now)), edit, fleet.settings.expiry_days, site.now, renew)
    apply(fleet, sign_proposal(proposal, fleet.keys)[0], site.now)
    (fleet.path / "root.json").write_bytes(installed)


def thief(site: UpdateSite, folder: str = "forged") -> Forger:
    """Return a thief with a copy of every key but the root's."""
    keys = site.folder / f"{folder}-keys"
    shutil.copytree(site.fleet.keys.folder, keys, ignore=shutil.ignore_patterns("root*"))
    return Forger(site, site.folder / folder, keys)


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(time, "time", lambda: seconds)


# Fast-forward


def test_versions_pushed_to_the_limit_are_forgotten_once_the_root_replaced_the_keys(site: UpdateSite) -> None:
    forged = thief(site)
    forged.edit("rollouts", lambda _signed: None, key="rollouts", version=FAR)
    forged.publish(version=FAR)
    assert not troubles(site.look(DirectoryTransport(forged.folder)))
    assert troubles(site.look()) == [("trust", "rollback")]
    site.release("1.1.0")
    rotate(site, *ONLINE)
    site.start("1.1.0")
    assert names(site.look())[-1] == "Stored"
    assert troubles(site.look(DirectoryTransport(forged.folder))) == [("trust", "signature")]


def test_versions_beyond_64_bits_do_no_lasting_harm(site: UpdateSite) -> None:
    forged = thief(site)
    forged.edit("rollouts", lambda _signed: None, key="rollouts", version=10**40)
    forged.publish(version=10**40)
    assert not troubles(site.look(DirectoryTransport(forged.folder)))
    rotate(site, *ONLINE)
    assert not troubles(site.look())


def test_replacing_only_the_rollouts_key_does_not_undo_a_fast_forward(site: UpdateSite) -> None:
    forged = thief(site)
    forged.edit("rollouts", lambda _signed: None, key="rollouts", version=FAR)
    forged.publish(version=FAR)
    site.look(DirectoryTransport(forged.folder))
    rotate(site, "rollouts")
    assert troubles(site.look()) == [("trust", "rollback")]
    rotate(site, "snapshot", "timestamp")
    assert not troubles(site.look())


def test_new_root_that_keeps_the_online_keys_opens_no_replay(site: UpdateSite) -> None:
    old = site.keep_copy("old")
    site.release("1.1.0")
    site.look()
    change(site, lambda _draft: None, renew=("root", "targets"))
    shutil.copy(site.repository / "metadata" / "2.root.json", old / "metadata")
    shutil.rmtree(site.state.tuf / "trusted")
    assert troubles(site.look(DirectoryTransport(old))) == [("trust", "rollback")]


def test_replay_of_the_state_before_a_rotation_is_refused(site: UpdateSite) -> None:
    old = site.keep_copy("old")
    rotate(site, *ONLINE)
    assert not troubles(site.look())
    assert troubles(site.look(DirectoryTransport(old))) == [("trust", "signature")]
    shutil.rmtree(site.state.tuf / "trusted")
    assert troubles(site.look(DirectoryTransport(old))) == [("trust", "rollback")]


def test_largest_serial_is_followed_by_the_first_and_binds_nobody(site: UpdateSite) -> None:
    forged = thief(site)
    channel = read_channel(site.fleet.read(site.now), CHANNEL)
    assert isinstance(channel, Channel)
    forged.list_target("rollouts", channel_target(CHANNEL), _with_serial(channel, MAX_SERIAL), key="rollouts")
    forged.publish()
    offer = next(said for said in site.look(DirectoryTransport(forged.folder)) if isinstance(said, Offer))
    assert offer.candidate.serial == MAX_SERIAL
    rotate(site, *ONLINE)
    offer = next(said for said in site.look(serial=MAX_SERIAL) if isinstance(said, Offer))
    assert offer.candidate.serial == channel.serial
    assert next_serial(MAX_SERIAL) == 1
    with pytest.raises(ContractError, match="serial"):
        parse_channel(_with_serial(channel, MAX_SERIAL + 1))


def _with_serial(channel: Channel, serial: int) -> bytes:
    return encode(channel).replace(b'"serial":%d' % channel.serial, b'"serial":%d' % serial)


# Time


def test_time_a_thief_made_the_device_believe_is_forgotten_with_the_keys(
    site: UpdateSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = thief(site)
    ten_years = datetime.now(UTC) + timedelta(days=3650)

    def expire_late(signed: object) -> None:
        signed.expires = ten_years.replace(microsecond=0)  # type: ignore[attr-defined]

    forged.edit("rollouts", expire_late, key="rollouts")
    forged.edit("snapshot", expire_late, key="snapshot")
    forged.publish(expires=ten_years)
    with monkeypatch.context() as ahead:
        set_clock(ahead, time.time() + 30 * 86400)
        assert not troubles(site.look(DirectoryTransport(forged.folder)))
    assert troubles(site.look())[0][0] == "trust"
    rotate(site, *ONLINE)
    assert not troubles(site.look())


def test_signed_date_in_the_future_is_not_believed_as_the_present(site: UpdateSite) -> None:
    site.release("1.1.0", created="2099-01-01T00:00:00Z")
    site.start("1.1.0")
    assert names(site.look())[-1] == "Stored"
    site.release("1.2.0")
    site.start("1.2.0")
    assert names(site.look())[-1] == "Stored"  # under the timestamp that was valid before, too
    site.sign_again(timedelta(hours=13))
    assert not troubles(site.look())


@pytest.mark.parametrize("year", [1970, 2099])
def test_wrong_clock_at_installation_heals_when_it_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0")
    with monkeypatch.context() as wrong:
        set_clock(wrong, datetime(year, 1, 1, 0, 1, tzinfo=UTC).timestamp())
        site.look()
    assert not troubles(site.look(ready=()))
    assert list(site.state.releases.iterdir())


def test_clock_ahead_within_the_timestamps_life_costs_nothing_later(
    site: UpdateSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ahead:
        set_clock(ahead, time.time() + 20 * 3600)
        assert not troubles(site.look())
    assert not troubles(site.look())
    site.release("1.1.0")
    site.start("1.1.0")
    assert names(site.look())[-1] == "Stored"


def test_clock_set_back_does_not_reopen_a_rollout_past_its_deadline(
    site: UpdateSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.release("1.1.0")
    site.start("1.1.0", deadline=(datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert names(site.look()) == ["Trusted", "Hold"]
    set_clock(monkeypatch, 5.0)
    assert names(site.look()) == ["Trusted", "Hold"]
