"""Which commands `tests/system/test_nothing_leaves.py` watches: all there are."""

from __future__ import annotations

from support.boxes.watched_commands import ELSEWHERE, GROUPS, command_of, commands


def test_every_command_is_run_in_the_watched_network() -> None:
    known = set(commands())
    watched = {command_of(line, known) for lines in GROUPS.values() for line in lines} | set(ELSEWHERE)
    assert known - watched == set(), "add a line to tests/support/boxes/watched_commands.py"
    assert watched <= known
    assert {"fleet simulate", "fleet keys sign", "agent run", "example"} <= known  # the walk went into the groups
