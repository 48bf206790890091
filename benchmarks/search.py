"""How fast is exact Hamming search? Beside faiss, usearch and the memory's own speed, in one run.

    python benchmarks/search.py --part bandwidth     # what reading memory costs here: the limit of one query
    python benchmarks/search.py --part exact --codes 1e6 --bits 64
    python benchmarks/search.py --part paths --bits 64
    python benchmarks/search.py --part threads
    python benchmarks/search.py --part large --codes 1e8
    python benchmarks/search.py --part open
    python benchmarks/search.py --part build         # approximate indexes of 1 M codes; minutes
    python benchmarks/search.py --part approximate --bits 64
    python benchmarks/search.py --part numba --bits 64
    python benchmarks/search_table.py                # writes docs/results/search.md

Needs `pip install faiss-cpu usearch numba` beside Semblance. Every part adds records to
docs/results/search.jsonl, in place of its own earlier ones. Codes are uniformly random unless a part says
otherwise, queries come from the same law. Sides take turns, round after round; a figure is the median of the
rounds and its spread their least and largest; a ratio is taken round by round. Answers of ours are compared
with the other side's distances. One thread unless said.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from semblance.index import _kernel
from semblance.index.scan import Config, Index
from semblance.native import processor

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PEERS = {"faiss": "faiss-cpu", "usearch": "usearch", "numba": "numba"}
SCRATCH = Path(os.environ.get("SEMBLANCE_SCRATCH", tempfile.gettempdir())) / "semblance-search"
Record = dict[str, Any]
Work = Callable[[], Any]


def machine() -> str:
    """The processor, as it stands beside every number."""
    return f"{processor()}, {os.cpu_count()} cores"


def draw(n: int, bits: int, seed: int) -> np.ndarray:
    """Uniform codes `(n, bits / 8)`, made in place."""
    words = np.empty((n, bits // 64), dtype=np.uint64)
    for start in range(0, n, 10**7):
        r = np.random.default_rng([seed, start])
        part = words[start : start + 10**7]
        part[:] = r.integers(0, 2**64, part.shape, dtype=np.uint64)
    return words.view(np.uint8)


def loose(n: int, bits: int, seed: int) -> np.ndarray:
    """Clustered codes: 10,000 random centres, each bit flipped with probability 1/8."""
    centres = np.random.default_rng(0).integers(0, 256, (10_000, bits // 8), dtype=np.uint8)
    r = np.random.default_rng([seed, 1])
    codes = centres[r.integers(0, 10_000, n)]
    masks = [r.integers(0, 256, codes.shape, dtype=np.uint8) for _ in range(3)]
    return codes ^ (masks[0] & masks[1] & masks[2])


def rounds(sides: dict[str, Work], count: int) -> dict[str, list[float]]:
    """Seconds of each side, round after round, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(count + 1):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def summary(times: list[float], per: float = 1.0) -> list[float]:
    """Median, least and largest of `times / per`."""
    return [statistics.median(times) / per, min(times) / per, max(times) / per]


def ratios(slow: list[float], fast: list[float], per: float = 1.0) -> list[float]:
    """The same of the ratio, round by round."""
    return summary([a / b for a, b in zip(slow, fast, strict=True)], per)


def one_by_one(search: Callable[[np.ndarray], Any], queries: np.ndarray) -> Work:
    """All queries, each in a call of its own."""
    return lambda: [search(queries[i : i + 1]) for i in range(len(queries))]


def faiss_flat(codes: np.ndarray) -> Any:
    """faiss's exact index of the codes."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    return index


def usearch_exact(codes: np.ndarray, queries: np.ndarray, k: int) -> Any:
    """usearch's exact search, one thread."""
    from usearch.index import MetricKind, ScalarKind, search

    return search(codes, queries, k, MetricKind.Hamming, exact=True, threads=1, dtype=ScalarKind.B1)


def measure_bandwidth(options: argparse.Namespace) -> list[Record]:
    """Reading 2 GB once: the C library's memchr and memcmp, NumPy's maximum; the best of them counts."""
    libc = ctypes.CDLL(None)
    libc.memchr.restype, libc.memchr.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t],
    )
    libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    x = np.full(2 * 10**9, 2, dtype=np.uint8)
    half = len(x) // 2
    sides: dict[str, Work] = {
        "memchr": lambda: libc.memchr(x.ctypes.data, 1, len(x)),
        "memcmp": lambda: libc.memcmp(x.ctypes.data, x.ctypes.data + half, half),
        "numpy max": lambda: x.max(),
    }
    records = []
    for name, times in rounds(sides, 7).items():
        speeds = [len(x) / seconds / 1e9 for seconds in times]
        records.append({"way": name, "gb_per_s": summary(speeds)})
        records[-1].update({peer: metadata.version(name) for peer, name in PEERS.items()})
    return records


def measure_exact(options: argparse.Namespace) -> list[Record]:
    """Single queries and batches beside faiss and usearch."""
    n, bits = int(options.codes), options.bits
    codes = draw(n, bits, 1)
    batch = draw(1024 if n <= 10**6 else 256, bits, 2)
    some = batch[: 32 if n <= 10**6 else 16]
    few = batch[: 4 if n <= 10**6 else 1]
    faiss_batch = batch[: 512 if n <= 10**6 else 64]
    flat = faiss_flat(codes)
    ours = Index()
    ours.add(codes)
    records: list[Record] = []
    for k in (10, 100):
        right, _ = flat.search(faiss_batch[:32], k)
        assert np.array_equal(ours.search(batch, k).distances[:32], right)
        theirs = usearch_exact(codes, few[:1], k)
        assert np.array_equal(theirs.distances.ravel(), right[0])
        sides: dict[str, Work] = {
            "single": one_by_one(lambda q, k=k: ours.search(q, k), some),
            "faiss single": one_by_one(lambda q, k=k: flat.search(q, k), some),
            "usearch single": one_by_one(lambda q, k=k: usearch_exact(codes, q, k), few),
            "batch": lambda k=k: ours.search(batch, k),
            "faiss batch": lambda k=k: flat.search(faiss_batch, k),
        }
        asked = {"single": some, "faiss single": some, "usearch single": few, "batch": batch}
        asked["faiss batch"] = faiss_batch
        times = rounds(sides, options.rounds)
        each = {name: [t / len(asked[name]) for t in seconds] for name, seconds in times.items()}
        records.append(
            {
                "codes": n,
                "bits": bits,
                "k": k,
                "ms": {name: summary(seconds, 1e-3) for name, seconds in each.items()},
                "batch_over_faiss": ratios(each["faiss batch"], each["batch"]),
                "single_over_faiss": ratios(each["faiss single"], each["single"]),
                "queries": {name: len(asked[name]) for name in asked},
            }
        )
    return records


def measure_paths(options: argparse.Namespace) -> list[Record]:
    """Every way the kernels can run here: one query beyond the cache, and a batch."""
    records = []
    million, ten = draw(10**6, options.bits, 1).view(np.uint64), draw(10**7, options.bits, 1).view(np.uint64)
    queries = draw(1024, options.bits, 2).view(np.uint64)
    for path in _kernel.paths():
        asked = queries[: {"numpy": 4, "native": 256, "native-popcnt": 256}.get(path, 1024)]
        times = rounds(
            {
                "single 10 M": lambda path=path: _kernel.nearest(ten, queries[:1], 10, path=path),
                "batch 1 M": lambda path=path, asked=asked: _kernel.nearest(million, asked, 10, path=path),
            },
            3 if path == "numpy" else options.rounds,
        )
        per_query = summary(times["batch 1 M"], 1e-3 * len(asked))
        records.append(
            {
                "path": path,
                "bits": options.bits,
                "single_ms": summary(times["single 10 M"], 1e-3),
                "batch_ms": per_query,
            }
        )
    return records


def repeated(index: Index, queries: np.ndarray, times: int) -> Work:
    """The same search, several times."""
    return lambda: [index.search(queries, 10) for _ in range(times)]


def measure_threads(options: argparse.Namespace) -> list[Record]:
    """Two threads and one, by turns."""
    records = []
    for n, bits, q in (
        (10**6, 64, 1024),
        (10**6, 256, 1024),
        (10**7, 64, 256),
        (10**7, 64, 1),
        (10**8, 64, 1),
    ):
        codes, queries = draw(n, bits, 1), draw(q, bits, 2)
        one, two = Index(), Index(Config(threads=2))
        one.add(codes)
        two._codes = one._codes  # the same memory
        del codes
        assert np.array_equal(one.search(queries, 10).ids, two.search(queries, 10).ids)
        repeats = 1 if n * q >= 10**8 else 20
        sides = {"one": repeated(one, queries, repeats), "two": repeated(two, queries, repeats)}
        times = rounds(sides, options.rounds)
        records.append(
            {
                "codes": n,
                "bits": bits,
                "queries": q,
                "one_ms": summary(times["one"], 1e-3 * q * repeats),
                "two_ms": summary(times["two"], 1e-3 * q * repeats),
                "ratio": ratios(times["one"], times["two"]),
            }
        )
        del one, two
    return records


def large_folder(n: int) -> Path:
    """An index of n random 64-bit codes on disk, written in place: never floats, never a second copy."""
    folder = SCRATCH / f"scan-{n}"
    if not (folder / "index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = np.lib.format.open_memmap(folder / "codes.npy", mode="w+", dtype="<u8", shape=(n, 1))
        for start in range(0, n, 10**7):
            part = words[start : start + 10**7]
            part[:] = np.random.default_rng([1, start]).integers(0, 2**64, part.shape, dtype=np.uint64)
        words.flush()
        about = {"bits": 64, "count": n, "named": False, "more": {"threads": 1}}
        text = json.dumps({"format": 1, "index": "scan", **about})
        (folder / "index.json").write_text(text, encoding="utf-8")
    return folder


def measure_large(options: argparse.Namespace) -> list[Record]:
    """100 M and 1,000 M codes of 64 bits, mapped from disk and, in the page cache, in memory all the same."""
    n, records = int(options.codes), []
    folder = large_folder(n)
    queries = draw(256, 64, 2)
    index = None
    for threads in (1, 2):
        del index  # letting go of so much takes a while
        started = time.perf_counter()
        index = Index.load(folder)
        opened = time.perf_counter() - started
        index.config = Config(threads=threads)
        times = rounds({"single": lambda index=index: index.search(queries[:1], 10)}, options.rounds)
        batch = rounds({"batch": lambda index=index: index.search(queries, 10)}, 2)
        counts = index.count(queries[:1])[0].cumsum()
        found = index.search(queries[:1], 10).distances[0]
        assert counts[int(found[-1])] >= 10 > counts[int(found[-1]) - 1]
        record = {"codes": n, "threads": threads, "open_ms": opened * 1e3, "queries": len(queries)}
        record["single_ms"] = summary(times["single"], 1e-3)
        record["batch_ms"] = summary(batch["batch"], 1e-3 * len(queries))
        records.append(record)
    return records


def measure_open(options: argparse.Namespace) -> list[Record]:
    """Opening an index of 10 M codes, ids 0 to n-1 and any, and the first search after."""
    records = []
    for named in (False, True):
        index = Index()
        codes = draw(10**7, 64, 1)
        index.add(codes, np.arange(10**7) * 2 if named else None)
        folder = SCRATCH / f"open-{named}"
        index.save(folder, overwrite=True)
        opened, first = [], []
        for _ in range(9):
            started = time.perf_counter()
            again = Index.load(folder)
            opened.append(time.perf_counter() - started)
            again.search(codes[:1], 10)
            first.append(time.perf_counter() - started)
        records.append({"ids": "any" if named else "0 to n-1", "open_ms": summary(opened, 1e-3)})
        records[-1]["first_search_ms"] = summary(first, 1e-3)
    return records


def approximate_indexes(bits: int, kind: str) -> dict[str, Path]:
    """Where the approximate indexes of 1 M codes lie."""
    names = ("faiss-ivf", "faiss-hnsw", "usearch-hnsw")
    return {name: SCRATCH / f"{name}-{kind}-{bits}.index" for name in names}


def kinds(bits: int) -> tuple[str, ...]:
    """Which codes the approximate indexes get: without any structure only the short ones."""
    return ("uniform", "loose") if bits == 64 else ("loose",)


def measure_build(options: argparse.Namespace) -> list[Record]:
    """Builds the approximate indexes, all cores: not a figure of search, and slow."""
    import faiss
    from usearch.index import Index as Usearch
    from usearch.index import MetricKind, ScalarKind

    SCRATCH.mkdir(parents=True, exist_ok=True)
    records = []
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    for kind in kinds(options.bits):
        codes = (draw if kind == "uniform" else loose)(10**6, options.bits, 1)
        for name, path in approximate_indexes(options.bits, kind).items():
            started = time.perf_counter()
            if path.exists():
                continue
            if name == "faiss-ivf":
                quantizer = faiss.IndexBinaryFlat(options.bits)
                index = faiss.IndexBinaryIVF(quantizer, options.bits, 1024)
                index.train(codes[::4].copy())
                index.add(codes)
                faiss.write_index_binary(index, str(path))
            elif name == "faiss-hnsw":
                index = faiss.IndexBinaryHNSW(options.bits, 16)
                index.add(codes)
                faiss.write_index_binary(index, str(path))
            else:
                index = Usearch(ndim=options.bits, metric=MetricKind.Hamming, dtype=ScalarKind.B1)
                index.add(np.arange(len(codes)), codes)
                index.save(str(path))
            records.append(
                {"index": name, "kind": kind, "bits": options.bits, "s": time.perf_counter() - started}
            )
            print(records[-1], flush=True)
    return records


def measure_approximate(options: argparse.Namespace) -> list[Record]:
    """Recall and queries a second of approximate indexes, beside exact batches, 1 M codes, k = 10.

    A neighbour counts as found if it lies no further than the true tenth: ties are no mistakes.
    """
    import faiss
    from usearch.index import Index as Usearch

    faiss.omp_set_num_threads(1)
    records: list[Record] = []
    for kind in kinds(options.bits):
        make = draw if kind == "uniform" else loose
        codes, queries = make(10**6, options.bits, 1), make(1024, options.bits, 2)
        ours = Index()
        ours.add(codes)
        last = ours.search(queries, 10).distances[:, -1:]

        def judged(name: str, search: Work, last: np.ndarray = last, kind: str = kind) -> None:
            far = search()
            recall = float((far[:, :10] <= last).mean())
            seconds = rounds({name: search}, options.rounds)[name]
            speeds = [len(far) / t for t in seconds]
            records.append({"kind": kind, "bits": options.bits, "index": name, "recall": recall})
            records[-1]["queries_per_s"] = summary(speeds)
            print(records[-1], flush=True)

        judged("exact (ours)", lambda ours=ours, queries=queries: ours.search(queries, 10).distances)
        paths = approximate_indexes(options.bits, kind)
        ivf = faiss.read_index_binary(str(paths["faiss-ivf"]))
        for probes in (1, 4, 16, 64, 256):
            ivf.nprobe = probes
            judged(f"faiss IVF, nprobe {probes}", lambda ivf=ivf, queries=queries: ivf.search(queries, 10)[0])
        hnsw = faiss.read_index_binary(str(paths["faiss-hnsw"]))
        for effort in (16, 64, 256):
            hnsw.hnsw.efSearch = effort
            judged(f"faiss HNSW, ef {effort}", lambda hnsw=hnsw, queries=queries: hnsw.search(queries, 10)[0])
        graph = Usearch.restore(str(paths["usearch-hnsw"]))
        for effort in (16, 64, 256):
            graph.expansion_search = effort
            judged(
                f"usearch HNSW, ef {effort}",
                lambda graph=graph, queries=queries: graph.search(queries, 10, threads=1).distances,
            )
    return records


def measure_numba(options: argparse.Namespace) -> list[Record]:
    """The other language that was on offer: the same two tasks compiled by Numba."""
    from search_numba import nearest_many, nearest_one

    million = draw(10**6, options.bits, 1).view(np.uint64)
    ten = draw(10**7, options.bits, 1).view(np.uint64)
    queries = draw(1024, options.bits, 2).view(np.uint64)
    few = queries[:64]
    assert np.array_equal(
        nearest_one(million, queries[0], 10), _kernel.nearest(million, queries[:1], 10)[1][0]
    )
    assert np.array_equal(nearest_many(million, few, 10), _kernel.nearest(million, few, 10)[1])
    times = rounds(
        {
            "single": lambda: _kernel.nearest(ten, queries[:1], 10),
            "numba single": lambda: nearest_one(ten, queries[0], 10),
            "batch": lambda: _kernel.nearest(million, queries, 10),
            "numba batch": lambda: nearest_many(million, few, 10),
        },
        options.rounds,
    )
    scale = len(queries) / len(few)
    return [
        {
            "bits": options.bits,
            "single_ms": summary(times["single"], 1e-3),
            "numba_single_ms": summary(times["numba single"], 1e-3),
            "batch_ms": summary(times["batch"], 1e-3 * len(queries)),
            "numba_batch_ms": summary(times["numba batch"], 1e-3 * len(few)),
            "single_ratio": ratios(times["numba single"], times["single"]),
            "batch_ratio": [scale * x for x in ratios(times["numba batch"], times["batch"])],
        }
    ]


PARTS = {
    "bandwidth": measure_bandwidth,
    "exact": measure_exact,
    "paths": measure_paths,
    "threads": measure_threads,
    "large": measure_large,
    "open": measure_open,
    "build": measure_build,
    "approximate": measure_approximate,
    "numba": measure_numba,
}


def keep(part: str, records: list[Record], same: Record) -> None:
    """The records take the place of earlier ones of the same part and options."""
    path = RESULTS / "search.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    old = [json.loads(line) for line in lines]
    left = [r for r in old if r["part"] != part or any(r.get(key) != value for key, value in same.items())]
    new = [{"part": part, "machine": machine(), **record} for record in records]
    text = "\n".join(json.dumps(record) for record in left + new) + "\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Runs one part and keeps what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=sorted(PARTS), required=True)
    parser.add_argument("--codes", type=float, default=1e6)
    parser.add_argument("--bits", type=int, default=64, choices=(64, 128, 256))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    records = PARTS[options.part](options)
    same: Record = {}
    if options.part in ("exact", "paths", "approximate", "numba", "build"):
        same["bits"] = options.bits
    if options.part in ("exact", "large"):
        same["codes"] = int(options.codes)
    for record in records:
        print(json.dumps(record))
    if not options.dry and records:
        keep(options.part, records, same)


if __name__ == "__main__":
    sys.exit(main())
