"""Every scenario through both packages: what a program sees is the same, but for the table of differences."""

import json

import pytest

from tests.differential.compare import told_apart
from tests.differential.differences import DIFFERENCES, excused
from tests.differential.kit import OURS, SCENARIOS
from tests.differential.peer import Peer
from tests.differential.record import MODES, record
from tests.differential.scenarios import load

load()


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_packages_do_the_same(name: str, peer: Peer) -> None:
    used: set[str] = set()
    for mode in MODES:
        sdk = peer.ask(scenario=name, mode=mode)
        ours = json.loads(json.dumps(record(OURS, SCENARIOS[name], mode)))

        used |= excused(name, sdk, ours)

        if sdk != ours:
            pytest.fail(f"{name}, {mode}:\n{told_apart(sdk, ours)}", pytrace=False)

    unneeded = {each.name for each in DIFFERENCES if name in each.scenarios} - used
    assert not unneeded, f"no longer different here: take {name!r} out of these entries"
