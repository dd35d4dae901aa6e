"""Power cuts while the device's identity is replaced: at any call there is the old one or the new one, whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.disks.call_stops import why_not
from support.disks.cut_disks import disks
from support.disks.disk_model import write_image

from edge_agent.identity.files import IdentityFolder, IdentityPaths
from edge_agent.identity.validity import Enrolled

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def enrolled(serial: str) -> Enrolled:
    return Enrolled(device="dev-1", tenant="default", serial=serial, begin=0.0, end=1.0)


def papers(serial: str) -> IdentityPaths:
    parts = ("certificate", "key", "ca", "issuer")
    return IdentityPaths(**{part: f"{part} of {serial}".encode() for part in parts})


def replace(folder: IdentityFolder, serial: str) -> None:
    """Do what a renewal does to the disk."""
    with folder.hold():
        if folder.pending_key() is None:
            folder.keep_key(papers(serial).key)
        folder.adopt(enrolled(serial), papers(serial))


def whole(folder: IdentityFolder) -> str:
    """Return the serial of the identity in use, whose parts must be its own."""
    found = folder.current()
    assert found is not None
    files = folder.files(found)
    read = IdentityPaths(
        certificate=files.certificate.read_bytes(),
        key=files.key.read_bytes(),
        ca=files.ca.read_bytes(),
        issuer=files.issuer.read_bytes(),
    )
    assert read == papers(found.serial)
    return found.serial


def test_power_cut_in_a_renewal_leaves_the_old_identity_or_the_new_one_whole(tmp_path: Path) -> None:
    folder = IdentityFolder(tmp_path / "state" / "identity")
    folder.root.parent.mkdir()
    replace(folder, "a1")
    seen = set()
    left = list(disks(lambda: replace(folder, "b2"), folder.root.parent))
    for number, (calls, image) in enumerate(left):
        after = IdentityFolder(tmp_path / f"after-{number}" / "identity")
        write_image(image, after.root.parent)
        seen.add(serial := whole(after))
        assert serial == "b2" or calls < left[-1][0], "what was done has to last"
        assert after.pending_key() in (None, papers("b2").key)
        replace(after, "b2")
        assert whole(after) == "b2"
        assert after.pending_key() is None
        assert not [path for path in after.root.iterdir() if path.is_dir() and path.name not in ("a1", "b2")]
    assert seen == {"a1", "b2"}


def test_power_cut_in_the_first_enrollment_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    left = list(disks(lambda: replace(IdentityFolder(state / "identity"), "a1"), state))
    found = set()
    for number, (_, image) in enumerate(left):
        after = IdentityFolder(tmp_path / f"after-{number}" / "identity")
        write_image(image, after.root.parent)
        found.add(None if after.current() is None else whole(after))
        replace(after, "a1")
        assert whole(after) == "a1"
    assert found == {None, "a1"}
