import csv
import importlib.util

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.__main__ import main
from jaxal.select import STRATEGIES
from jaxal.train.head import predict_probs

needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("skactiveml") is None,
    reason='scikit-activeml is not installed: pip install -e ".[peers]"',
)


@pytest.fixture(scope="module")
def pool():
    return peers._unit_pool(peers.QUICK)


@needs_peer
@pytest.mark.parametrize("name", sorted(set(peers.PEERS) & set(STRATEGIES)))
def test_both_sides_do_the_same(name, pool):
    found = peers.time_both(name, pool, peers.QUICK.picks)
    assert found["ours"] > 0 and found["peer"] > 0 and found["compile"] > 0
    assert found["ratio"] == pytest.approx(found["peer"] / found["ours"])
    assert found["equal"] == (None if peers.PEERS[name].drawn else 1)


@needs_peer
def test_peers_pick_as_many_free_rows(pool):
    for peer in peers.PEERS.values():
        picks = peers._query(peer, pool, 8)
        assert len(set(picks.tolist())) == 8 and not set(picks.tolist()) & set(
            pool.labeled.tolist()
        )


@needs_peer
def test_writes_the_table(tmp_path, capsys, cells):
    names = ["margin", "random"]
    given = ["speed", "--peers", "--quick", "--strategies", *names, "--out", str(tmp_path)]
    assert main(given) == 0
    with (tmp_path / "speed_peers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["strategy"] for row in rows] == names
    assert [row["equal"] for row in rows] == ["1.0", ""]
    text = (tmp_path / "speed_peers.md").read_text()
    assert {line[0]: line[5] for line in cells(text) if len(line) == 7}.items() >= {
        ("margin", "100 %"),
        ("random", "drawn"),
    }
    for part in ("scikit-activeml 1.", '"pool": 300'):
        assert part in text
    assert capsys.readouterr().out.startswith("| margin |")


@needs_peer
def test_a_strategy_without_a_peer_is_named(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["speed", "--peers", "--strategies", "ntkcpl", "--out", str(out)]) == 2
    assert "--peers: expected strategies of" in capsys.readouterr().err
    assert not out.exists()


def test_peers_are_of_strategies_there_are():
    assert set(peers.PEERS) <= set(STRATEGIES)


def test_both_sides_see_one_head_and_rows_of_length_one(pool):
    np.testing.assert_allclose(np.linalg.norm(pool.features, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(pool.probs, predict_probs(pool.trained, pool.features), atol=1e-5)


def test_missing_extra_says_how_to_install(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "skactiveml" else find(name)
    )
    assert main(["speed", "--peers", "--out", str(tmp_path / "out")]) == 2
    assert 'skactiveml: not installed; pip install -e ".[peers]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
