"""The SDK's side answers, or says what is wrong with it: no test here is left out without a word."""

from pathlib import Path

import pytest

from tests.differential.peer import Peer, PeerFailedError, PeerMissingError


def test_without_its_environment_it_is_told_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(PeerMissingError, match=r"make \.venv-peer/\.peer"):
        Peer(tmp_path / "python")


def test_what_breaks_on_that_side_is_told_with_its_traceback_and_ends_nothing(peer: Peer) -> None:
    with pytest.raises(PeerFailedError, match=r"no such request: .*nonsense"):
        peer.ask(nonsense=1)

    assert peer.ask(surface=["UserError"])["UserError"]["bases"] == ["AgentsException"]
