"""How long signatures live, and whose a new family is."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Targets

from edge_fleet.errors import FleetError
from edge_fleet.signing.roles import Lifetimes, delegate, delegated, family_signers, releases_paths, releases_role


def test_how_long_signatures_live_by_role() -> None:
    days = {role: Lifetimes().of(role) / timedelta(days=1) for role in ("root", "targets", "snapshot", "timestamp")}
    assert days == {"root": 365.0, "targets": 90.0, "snapshot": 7.0, "timestamp": 1.0}
    assert Lifetimes().of("rollouts") == Lifetimes().of("releases-har") == timedelta(days=90)


@pytest.mark.parametrize(("days", "fits"), [(0.0, False), (0.1, True), (3650.0, True), (3650.1, False)])
def test_a_lifetime_is_over_none_and_at_most_ten_years(days: float, fits: bool) -> None:
    if fits:
        assert msgspec.convert({"root": days}, Lifetimes).root == days
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"root": days}, Lifetimes)


def test_a_new_family_has_the_signers_that_all_the_others_have() -> None:
    targets, first, second = Targets(), CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    assert delegated(targets) == {}
    assert family_signers(targets) is None
    delegate(targets, releases_role("a"), releases_paths("a"), [first.public_key])
    assert delegated(targets)[releases_role("a")].threshold == 1
    assert family_signers(targets) == ([first.public_key], 1)
    delegate(targets, releases_role("b"), releases_paths("b"), [first.public_key])
    assert family_signers(targets) == ([first.public_key], 1)
    delegate(targets, releases_role("c"), releases_paths("c"), [first.public_key, second.public_key], 2)
    with pytest.raises(FleetError, match="different signers"):
        family_signers(targets)
