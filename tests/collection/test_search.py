"""Search: the nearest by a plain NumPy distance; queries of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semblance.collection.build import learn
from semblance.collection.store import Collection
from semblance.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def collection(built: Path) -> Collection:
    return Collection.open(built)


def test_order_and_distances(collection: Collection) -> None:
    rows = np.array(collection.embeddings, np.float64)
    distances = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(2))
    found = collection.search([int(i) for i in collection.ids[:20]], k=60)
    for i in range(20):
        order = np.lexsort((collection.ids, distances[i].astype(np.float32)))
        np.testing.assert_array_equal(found.ids[i], collection.ids[order])
        np.testing.assert_allclose(found.distances[i], distances[i][order], atol=1e-6)
    path_of = dict(zip(collection.ids.tolist(), collection.paths, strict=True))
    assert found.paths is not None
    assert found.paths[3] == tuple(path_of[i] for i in found.ids[3].tolist())


def test_a_file_of_the_collection_finds_itself(collection: Collection, digits: Path, tmp_path: Path) -> None:
    path = collection.paths[11]
    copy = tmp_path / "another name.png"
    copy.write_bytes((digits / path).read_bytes())
    for query in (digits / path, copy, str(copy), int(collection.ids[11])):
        found = collection.search(query, k=1)
        assert found.paths == ((path,),)
        assert found.distances[0, 0] == 0
        other = collection.search(query, k=60, exclude_self=True)
        assert collection.ids[11] not in other.ids
        assert (other.ids[0] >= 0).sum() == 59
        assert other.ids[0, -1] == -1
        assert np.isinf(other.distances[0, -1])
        assert len(other.records()[0]["matches"]) == 59


def test_exact_copies_are_left_out_together(pair: tuple[Path, Path]) -> None:
    photos, out = pair
    (photos / "copy.png").write_bytes((photos / "0" / "0000.png").read_bytes())
    updated = learn(photos, out)
    both = updated.search(photos / "copy.png", k=3)
    assert sorted(both.paths[0][:2]) == ["0/0000.png", "copy.png"]  # type: ignore[index]
    assert both.distances[0, :2].tolist() == [0, 0]
    alone = updated.search(photos / "copy.png", k=3, exclude_self=True)
    assert not {"0/0000.png", "copy.png"} & set(alone.paths[0])  # type: ignore[index]


def test_many_queries_of_many_kinds(collection: Collection, digits: Path) -> None:
    image = Image.open(digits / collection.paths[2])
    queries = [digits / collection.paths[5], image, np.asarray(image), 7]
    found = collection.search(queries, k=2)
    assert found.queries == (str(digits / collection.paths[5]), "000001", "000002", "7")
    assert [row[0] for row in found.paths or ()][1:3] == [collection.paths[2]] * 2
    whole = collection.search(digits / "3", k=1)
    assert [row[0] for row in whole.paths or ()] == [f"3/{name}" for name in whole.queries or ()]
    everything = collection.search(str(digits), k=1)
    assert everything.queries == collection.paths
    frame = found.to_pandas()
    assert list(frame.columns) == ["query", "rank", "id", "path", "distance"]
    assert len(frame) == 8


def test_bad_queries(collection: Collection, digits: Path, tmp_path: Path) -> None:
    for query, said in [
        (10_000, "no readable image has the id 10000"),
        (tmp_path / "nothing.png", "does not exist"),
        (digits / "broken.png", "broken.png cannot be used"),
        ([], "there is no query"),
        (2.5, "no query"),
    ]:
        with pytest.raises(InputError, match=said):
            collection.search(query)
    with pytest.raises(ConfigError, match="k is 0"):
        collection.search(0, k=0)
