"""A shard of the embedding table, and snapshots that are whole or not there."""

from pathlib import Path

import numpy as np
import pytest
import snapshots
from embedding_table import EmbeddingTable, shard_of


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def gradients(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4), dtype=np.float32)


def test_an_untaught_row_is_the_same_for_whoever_asks() -> None:
    one, other = EmbeddingTable(width=4), EmbeddingTable(width=4)
    other.lookup(ids(8, 9))
    rows = one.lookup(ids(7, 8, 7))
    assert np.array_equal(rows[:2], other.lookup(ids(7, 8))) and np.array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[0], rows[1])
    assert len(one) == 0, "looking up costs no memory"


def test_untaught_rows_fill_the_spread_evenly() -> None:
    rows = EmbeddingTable(width=4, spread=0.2).lookup(np.arange(5000))
    assert np.abs(rows).max() <= 0.2 and abs(float(rows.mean())) < 0.005
    assert float(rows.std()) == pytest.approx(0.2 / 3**0.5, rel=0.02)
    assert abs(float(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1])) < 0.05


def test_teaching_is_adagrad() -> None:
    torch = pytest.importorskip("torch")
    table = EmbeddingTable(width=4, learning_rate=0.1)
    expected = torch.nn.Parameter(torch.from_numpy(table.lookup(np.arange(6))))
    optimizer = torch.optim.Adagrad([expected], lr=0.1)
    for seed in range(5):
        expected.grad = torch.from_numpy(gradients(6, seed))
        optimizer.step()
        table.teach(np.arange(6), gradients(6, seed))
    assert np.allclose(table.lookup(np.arange(6)), expected.detach().numpy(), atol=1e-6)


def test_rows_keep_their_values_while_the_table_grows() -> None:
    grown, steady = EmbeddingTable(width=4), EmbeddingTable(width=4)
    for first in range(0, 300, 3):
        grown.teach(np.arange(first, first + 3), gradients(3, first))
    for first in reversed(range(0, 300, 3)):
        steady.teach(np.arange(first, first + 3), gradients(3, first))
    assert len(grown) == 300
    assert np.array_equal(grown.lookup(np.arange(300)), steady.lookup(np.arange(300)))


def test_a_loaded_table_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    table, other = EmbeddingTable(width=4), EmbeddingTable(width=4)
    table.teach(ids(5, 3), gradients(2))
    table.save(tmp_path / "shard.npz")
    other.teach(ids(1), gradients(1))
    other.load(tmp_path / "shard.npz")
    assert len(other) == 2
    for each in (table, other):
        each.teach(ids(3, 4), gradients(2, 1))
    assert np.array_equal(table.lookup(ids(1, 3, 4, 5)), other.lookup(ids(1, 3, 4, 5)))


def test_a_cleared_table_is_new() -> None:
    table = EmbeddingTable(width=4)
    table.teach(ids(5, 3), gradients(2))
    table.clear()
    table.teach(ids(3), gradients(1))
    expected = EmbeddingTable(width=4)
    expected.teach(ids(3), gradients(1))
    assert len(table) == 1 and np.array_equal(table.lookup(ids(3, 5)), expected.lookup(ids(3, 5)))


def test_saving_over_a_file_replaces_it_in_one_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = EmbeddingTable(width=4)
    table.teach(ids(5), gradients(1))
    table.save(tmp_path / "shard.npz")
    before = (tmp_path / "shard.npz").read_bytes()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", die)
    table.teach(ids(6), gradients(1))
    with pytest.raises(KeyboardInterrupt):
        table.save(tmp_path / "shard.npz")
    assert (tmp_path / "shard.npz").read_bytes() == before


def test_shards_share_the_ids_evenly() -> None:
    count = np.bincount(shard_of(np.arange(10_000), 4), minlength=4)
    assert all(2300 < each < 2700 for each in count)
    assert set(shard_of(np.arange(100), 1)) == {0}


def test_a_snapshot_counts_once_its_dense_half_is_there(tmp_path: Path) -> None:
    assert snapshots.newest(tmp_path) == 0
    for step in (50, 100, 150):
        assert snapshots.newest(tmp_path) == step - 50
        snapshots.shard_file(tmp_path, step, 0, 1).parent.mkdir(exist_ok=True)
        snapshots.shard_file(tmp_path, step, 0, 1).write_bytes(b"rows")
        snapshots.commit(tmp_path, step, b"dense")
    assert snapshots.newest(tmp_path) == 150
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000100", "step_00000150"], "two are kept"
