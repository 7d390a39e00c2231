"""The short form of `make soak`: servers, lines and clients that break at random, by a seed, and what has to hold."""

import itertools
from pathlib import Path

import pytest

from tests import soak

pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("redis", marks=pytest.mark.requires_program("redis-server"))]
)
async def test_row_50_whatever_breaks_every_client_has_the_whole_of_its_run(
    tmp_path: Path, store: str
) -> None:
    lines: list[str] = []
    with soak.store_in(tmp_path, store) as address:
        figures = await soak.soak(
            tmp_path, address, seed=50, rounds=iter("a"), runs=8, faults=2, say=lines.append
        )

    assert [each["runs"] for each in figures] == [8]
    assert sum(figures[0]["faults"].values()) == 2
    assert figures[0]["connections"] >= 8
    assert len(lines) == 1


def test_what_does_not_hold_is_told_with_what_repeats_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak.soaking, "APP", "raise SystemExit(3)")
    monkeypatch.setattr(soak.tempfile, "mkdtemp", lambda prefix: str(tmp_path))

    code = soak.main(["--seed", "7", "--minutes", "0"])

    told = capsys.readouterr().out
    assert code == 1
    assert told.startswith("seed 7, sqlite\nbroken: a server ended by itself")
    assert "make soak ARGS='--seed 7 --store sqlite --runs 60 --faults 4'" in told
    assert '"seed": 7' in (tmp_path / "broken.json").read_text()


def test_growth_is_that_of_the_rounds_behind_the_first_third() -> None:
    sizes = itertools.chain([900, 1], range(100, 500, 100))
    figures = [{"runs": 10, "rss_kib": size} for size in sizes]

    assert soak.slope(figures, "rss_kib") == pytest.approx(10)
    assert soak.slope(figures[:1], "rss_kib") == 0
