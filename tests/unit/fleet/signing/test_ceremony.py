"""A change of keys: proposed here, signed there, applied when enough have signed; and what a forged one cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.makers import fleets
from support.makers.fleets import NOW, device_download
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import TargetFile

from edge_contracts.errors import ContractError
from edge_fleet.cli.fleet import fleet as fleet_command
from edge_fleet.errors import CeremonyError, FleetError, KeyMissingError
from edge_fleet.releases.release import add_family, release, versions
from edge_fleet.signing import key_changes
from edge_fleet.signing.ceremony import (
    Proposal,
    apply,
    check_base,
    needs,
    pack_proposal,
    parse_proposal,
    propose,
    start,
)
from edge_fleet.signing.ceremony import sign_proposal as sign
from edge_fleet.signing.ceremony_text import changes
from edge_fleet.signing.key_changes import Draft
from edge_fleet.signing.keys import NAME_FIELD, ROLLOUTS, SNAPSHOT, TIMESTAMP, KeyRing
from edge_fleet.signing.refresh import refresh
from edge_fleet.signing.roles import Lifetimes, delegate, releases_paths, releases_role
from edge_fleet.signing.workspace import FleetWorkspace

MANIFEST = "models/har/1.0.0/manifest.json"


def run(*arguments: str | Path) -> Any:
    """Run a command with `--json` and return its one document; errors come out as they are."""
    result = CliRunner().invoke(fleet_command, [*map(str, arguments), "--json"], catch_exceptions=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def change(fleet: FleetWorkspace, *edits: Callable[[Draft], None], renew: tuple[str, ...] = ()) -> Proposal:
    """Return a proposal of these edits, unsigned."""
    proposal = start(fleet.read(NOW))
    for edit in edits:
        proposal = propose(proposal, edit, Lifetimes(), NOW, renew)
    return proposal


def holder(fleet: FleetWorkspace, folder: Path, name: str) -> KeyRing:
    """Make a key on a machine of its own and bring its public half to the fleet."""
    ring = KeyRing(folder / name)
    ring.create([name])
    (fleet.keys.folder / f"{name}.pub").write_bytes((folder / name / f"{name}.pub").read_bytes())
    return ring


def rotation(fleet: FleetWorkspace, *roles: str) -> Proposal:
    """Return a proposal that puts new keys, made here, in place of these roles' keys."""
    edits = []
    for role in roles:
        name = fleet.keys.free_name(role)
        fleet.keys.create([name])
        edits.append(partial(key_changes.replace, role=role, key=fleet.keys.public(name)))
    return change(fleet, *edits)


def test_root_moves_to_offline_holders_and_devices_follow(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    device_download(fleet, tmp_path, MANIFEST)
    file = tmp_path / "change.json"
    rings = [holder(fleet, tmp_path, name) for name in ("alice", "bob", "carol")]
    for name in ("alice", "bob", "carol"):
        run("keys", "add", fleet.path, "root", name, "--out", file)
    run("keys", "threshold", fleet.path, "root", "2", "--out", file)
    proposed = run("keys", "revoke", fleet.path, "root", "root", "--out", file)
    assert not proposed["complete"]
    assert any("2 signature(s) needed instead of 1" in line for line in proposed["changes"])
    run("keys", "sign", file, "--keys", fleet.path, "--yes")
    assert not run("keys", "sign", file, "--keys", rings[0].folder, "--yes", "--trusted", fleet.path / "root.json")[
        "complete"
    ]
    assert run("keys", "sign", file, "--keys", rings[2].folder, "--yes")["complete"]
    assert run("keys", "apply", fleet.path, file) == {"root": 2, "targets": 3, "signed": [], "waiting": []}
    (fleet.keys.folder / "root.pem").unlink()
    assert device_download(fleet, tmp_path, MANIFEST) != [None]
    assert json.loads((fleet.path / "root.json").read_bytes())["signed"]["version"] == 2
    held = [row for row in run("keys", "list", fleet.path)["keys"] if row["role"] == "root"]
    assert [(row["key"], row["threshold"], row["private"]) for row in held] == [
        (name, 2, None) for name in ("alice", "bob", "carol")
    ]


def test_below_the_threshold_nothing_is_applied_and_nothing_changes(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, root_keys=3, root_threshold=2)
    (fleet.keys.folder / "root-2.pem").unlink()
    (fleet.keys.folder / "root-3.pem").unlink()
    before = sorted(path.name for path in (fleet.repository / "metadata").iterdir())
    signed, names = sign(rotation(fleet, ROLLOUTS), fleet.keys)
    assert names == ["root"]
    with pytest.raises(CeremonyError, match="1 more signature"):
        apply(fleet, signed, NOW)
    assert sorted(path.name for path in (fleet.repository / "metadata").iterdir()) == before


def test_two_of_three_root_keys_replace_the_stolen_third(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, root_keys=3, root_threshold=2)
    fresh = holder(fleet, tmp_path, "dora")
    proposal = change(
        fleet,
        partial(key_changes.add, role="root", key=fleet.keys.public("dora")),
        partial(key_changes.revoke, role="root", named="root-3"),
    )
    (fleet.keys.folder / "root-3.pem").unlink()
    signed, _ = sign(proposal, fleet.keys)
    apply(fleet, sign(signed, fresh)[0], NOW)
    device_download(fleet, tmp_path)
    held = key_changes.holdings(fleet.read(NOW).root(), fleet.read(NOW).targets())[0]
    assert {key.keyid for key in held.keys} == {fleet.keys.public(name).keyid for name in ("root", "root-2", "dora")}


def test_rotated_online_keys_sign_at_once_and_the_old_ones_never_again(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    device_download(fleet, tmp_path)
    done = apply(fleet, sign(rotation(fleet, ROLLOUTS, SNAPSHOT, TIMESTAMP), fleet.keys)[0], NOW)
    assert done.signed == (ROLLOUTS,)
    for name in (ROLLOUTS, SNAPSHOT, TIMESTAMP):
        (fleet.keys.folder / f"{name}.pem").unlink()
    release(fleet, fleets.make_bundle(tmp_path / "b2", version="1.1.0", model=b"new"), NOW)
    assert None not in device_download(fleet, tmp_path, "channels/stable.json", "models/har/1.1.0/manifest.json")


def test_role_whose_new_key_is_elsewhere_waits_and_is_signed_by_refresh_there(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    holder(fleet, tmp_path, "team")
    proposal = change(fleet, partial(key_changes.replace, role="releases", key=fleet.keys.public("team")))
    done = apply(fleet, sign(proposal, fleet.keys)[0], NOW)
    assert done.waiting == ("releases-har",)
    with pytest.raises(TufError):
        device_download(fleet, tmp_path, MANIFEST)
    assert refresh(fleet, NOW).missing == ("releases-har",)
    (tmp_path / "team/team.pem").rename(fleet.keys.folder / "team.pem")
    assert refresh(fleet, NOW).signed == ("releases-har",)
    assert device_download(fleet, tmp_path, MANIFEST) != [None]


def test_a_new_family_belongs_to_those_who_sign_the_others_now(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    apply(fleet, sign(rotation(fleet, "releases"), fleet.keys)[0], NOW)
    add_family(fleet, "other", NOW)
    (fleet.keys.folder / "releases.pem").unlink()
    assert release(fleet, fleets.make_bundle(tmp_path / "b2", name="other"), NOW).new


def test_a_family_is_added_with_the_root_elsewhere(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    offline = tmp_path / "offline"
    offline.mkdir()
    for half in ("pem", "pub"):
        (fleet.keys.folder / f"root.{half}").rename(offline / f"root.{half}")
    file = tmp_path / "family.json"
    run("family", "add", fleet.path, "har", "--out", file)
    run("keys", "sign", file, "--keys", offline, "--yes")
    run("keys", "apply", fleet.path, file)
    release(fleet, fleets.make_bundle(tmp_path / "bundle"), NOW)
    assert versions(fleet.read(NOW), "har") == ["1.0.0"]


def test_a_family_from_before_deltas_may_sign_them_once_the_root_says_so(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    with fleet.change(NOW, ["targets"]) as repository:
        repository.set_paths("releases-har", ["models/har/*/manifest.json", "models/har/family.json"])
    key = fleet.keys.public("releases")
    proposal = change(fleet, partial(key_changes.add_family, family="har", key=None, first=key))
    assert "+ releases-har: may sign models/har/*/deltas.json" in changes(proposal)
    check_base(proposal)
    with pytest.raises(CeremonyError, match="this family exists"):
        propose(proposal, partial(key_changes.add_family, family="har", key=None, first=key), Lifetimes(), NOW)


def test_an_offline_root_is_renewed_before_it_expires(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    later = NOW + timedelta(days=300)
    proposal = propose(start(fleet.read(later)), lambda _draft: None, Lifetimes(), later, ("root", "targets"))
    assert any("renewal only" in line for line in changes(proposal))
    apply(fleet, sign(proposal, fleet.keys)[0], later)
    assert fleet.read(later).root().expires > later + timedelta(days=300)


def test_without_root_keys_a_change_names_the_way_to_propose_it_and_makes_no_key(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    (fleet.keys.folder / "root.pem").unlink()
    with pytest.raises(KeyMissingError):
        run("keys", "rotate", fleet.path, "rollouts")
    assert not (fleet.keys.folder / "rollouts-2.pub").exists()
    with pytest.raises(KeyMissingError) as caught:
        run("keys", "renew", fleet.path)
    assert "--out" in str(caught.value.hint)


def test_an_interrupted_apply_is_repeated(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    signed, _ = sign(rotation(fleet, SNAPSHOT, TIMESTAMP), fleet.keys)
    timestamp = fleet.repository / "metadata/timestamp.json"
    before = timestamp.read_bytes()
    apply(fleet, signed, NOW)
    timestamp.write_bytes(before)  # as if power had failed between the root and the timestamp
    assert apply(fleet, signed, NOW).root == 2
    assert device_download(fleet, tmp_path, MANIFEST) != [None]


def test_a_proposal_made_from_an_older_state_is_not_applied(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    first, second = (sign(rotation(fleet, SNAPSHOT), fleet.keys)[0] for _ in range(2))
    apply(fleet, first, NOW)
    with pytest.raises(CeremonyError, match="propose it again"):
        apply(fleet, second, NOW)


def test_the_file_of_an_earlier_ceremony_is_not_added_to(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    file = tmp_path / "change.json"
    run("keys", "rotate", fleet.path, "snapshot", "--out", file)
    run("keys", "sign", file, "--keys", fleet.path, "--yes")
    run("keys", "apply", fleet.path, file)
    with pytest.raises(CeremonyError, match="metadata that has been replaced"):
        run("keys", "renew", fleet.path, "--out", file)


def test_more_changes_drop_the_signatures_there_were(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    signed, _ = sign(rotation(fleet, SNAPSHOT), fleet.keys)
    assert not any(need.missing for need in needs(signed))
    fleet.keys.create(["more"])
    grown = propose(signed, partial(key_changes.add, role=TIMESTAMP, key=fleet.keys.public("more")), Lifetimes(), NOW)
    assert all(need.missing for need in needs(grown))
    assert len(key_changes.holdings(grown.root_after, grown.targets_after)[2].keys) == 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (partial(key_changes.revoke, role="root", named="root"), "0 key"),
        (partial(key_changes.revoke, role="root", named="nobody"), "names 0"),
        (partial(key_changes.set_threshold, role="root", threshold=2), "2 of 1"),
        (partial(key_changes.set_threshold, role="rollouts", threshold=0), "0 of 1"),
        (partial(key_changes.set_threshold, role="targets", threshold=1), "no such role"),
        (partial(key_changes.set_threshold, role="releases", threshold=1), "no such role"),
    ],
)
def test_a_change_that_would_lock_the_fleet_out_is_refused(
    tmp_path: Path, edit: Callable[[Draft], None], message: str
) -> None:
    with pytest.raises(CeremonyError, match=message):
        change(fleets.make_fleet(tmp_path), edit)


# Attacks


def test_a_proposal_that_hides_more_than_keys_is_refused_before_it_is_signed(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path, families=("har",))
    for hide in (_widen_paths, _list_a_target, _drop_rollouts, _delegate_like_a_family, _delegate_out_of_the_names):
        hidden = change(fleet, hide)
        with pytest.raises(CeremonyError, match="more than keys"):
            check_base(hidden)
        with pytest.raises(CeremonyError, match="more than keys"):
            apply(fleet, sign(hidden, fleet.keys)[0], NOW)


def test_a_proposal_that_lies_about_the_present_is_refused(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    trusted = fleet.read(NOW).root()
    thief = fleets.make_fleet(tmp_path / "thief")
    forged = change(thief)
    with pytest.raises(CeremonyError, match="not based on the root that you trust"):
        check_base(forged, trusted)
    lying = change(fleet)
    lying.root.signed.roles["root"].keyids.append(thief.keys.public("root").keyid)
    with pytest.raises(CeremonyError, match="not signed by the root keys"):
        check_base(lying)


def test_a_thiefs_key_under_the_id_or_the_name_of_another_is_told_apart(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    alice = holder(fleet, tmp_path, "alice").public("alice")
    thiefs = fleets.make_fleet(tmp_path / "thief").keys.public("root")
    thiefs.keyid = alice.keyid
    with pytest.raises(CeremonyError, match="not the id of the key"):
        check_base(change(fleet, partial(key_changes.add, role="root", key=thiefs)))
    alice.unrecognized_fields[NAME_FIELD] = "\x1b[2Jroot"
    said = " ".join(changes(change(fleet, partial(key_changes.add, role="root", key=alice))))
    assert "\x1b" not in said
    assert f"key {alice.keyid[:8]} [" in said


def test_a_thiefs_signature_on_a_proposal_counts_for_nothing(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    with pytest.raises(CeremonyError, match="no key here"):
        sign(rotation(fleet, SNAPSHOT), fleets.make_fleet(tmp_path / "thief").keys)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 100_000, b'{"root":{},"targets":{}}', b'{"root":{"signed":{"_type":"root"}},"targets":{}}'],
)
def test_a_malformed_proposal_is_a_typed_error(data: bytes) -> None:
    with pytest.raises((ContractError, FleetError, CeremonyError)):
        parse_proposal(data)


def test_a_proposal_reads_back_as_it_was_written(tmp_path: Path) -> None:
    proposal = sign(rotation(fleets.make_fleet(tmp_path), SNAPSHOT), FleetWorkspace(tmp_path / "fleet").keys)[0]
    assert pack_proposal(parse_proposal(pack_proposal(proposal))) == pack_proposal(proposal)
    assert not any(need.missing for need in needs(parse_proposal(pack_proposal(proposal))))


def _delegate_like_a_family(draft: Draft) -> None:
    """A role of another name with the paths of a family."""
    delegate(draft.targets, "har2", releases_paths("har2"), [next(iter(draft.root.keys.values()))])


def _delegate_out_of_the_names(draft: Draft) -> None:
    """A role called like a family's, of a family that no family may be called."""
    family = "../har"
    delegate(draft.targets, releases_role(family), releases_paths(family), [next(iter(draft.root.keys.values()))])


def _widen_paths(draft: Draft) -> None:
    assert draft.targets.delegations is not None
    assert draft.targets.delegations.roles is not None
    draft.targets.delegations.roles[ROLLOUTS].paths = ["*/*", "*/*/*", "*/*/*/*"]


def _list_a_target(draft: Draft) -> None:
    draft.targets.targets = {"models/har/9.9.9/manifest.json": TargetFile.from_data("x", b"{}", ["sha256"])}


def _drop_rollouts(draft: Draft) -> None:
    assert draft.targets.delegations is not None
    assert draft.targets.delegations.roles is not None
    del draft.targets.delegations.roles[ROLLOUTS]
