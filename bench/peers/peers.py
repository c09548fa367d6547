"""Measures a peer on a data set that `generate` wrote and `core` computed the exact answers of.

peers.py <peer> <directory> <dim> <cosine|l2> [work folder]     peer: hnsw | rabitq | flat | qdrant | lancedb

One thread, one query a call, the best of PASSES passes for the rate and all of them for percentiles, as
`core` measures. Prints one JSON object a line: first what the build cost, then one line for each search
setting. Recall is that of the 10 nearest; a neighbour as near as the tenth counts (ties).
"""

import json
import os
import resource
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np

K = 10
PASSES = 3
WARM_UP = 100


def main():
    peer, directory, dim, metric = sys.argv[1:5]
    work = sys.argv[5] if len(sys.argv) > 5 else tempfile.mkdtemp(prefix="vexlake-peer-")
    dim = int(dim)
    base = np.fromfile(f"{directory}/base.f32", dtype="<f4").reshape(-1, dim)
    queries = np.fromfile(f"{directory}/queries.f32", dtype="<f4").reshape(-1, dim)
    truth = np.fromfile(f"{directory}/truth-{metric}.u32", dtype="<u4").reshape(len(queries), -1)
    farthest = [np.linalg.norm(base[row[:K]] - q, axis=1).max() for row, q in zip(truth, queries)]
    began, cpu = time.perf_counter(), cpu_seconds()
    settings = PEERS[peer](base, metric, work)
    print_line(peer=peer, version=settings.version, rows=len(base), dim=dim, metric=metric,
               build_cpu_seconds=round(cpu_seconds() - cpu, 1), build_seconds=round(time.perf_counter() - began, 1),
               peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    for name, search in settings.searches:
        measure(peer, name, search, base, queries, farthest)


class Settings:
    """A built peer: its version, and (setting, search) pairs; a search takes a query and answers row numbers."""

    def __init__(self, package, searches):
        self.version = f"{package} {version(package)}"
        self.searches = searches


def measure(peer, setting, search, base, queries, farthest):
    for query in queries[:WARM_UP]:
        search(query)
    best, times, found = float("inf"), [], []
    for _ in range(PASSES):
        found.clear()
        cpu, began = time.process_time(), time.perf_counter()
        for query in queries:
            start = time.perf_counter()
            found.append(search(query))
            times.append(time.perf_counter() - start)
        best = min(best, time.perf_counter() - began)
        cpu = time.process_time() - cpu
    hits = sum(
        int((np.linalg.norm(base[np.asarray(rows[:K])] - query, axis=1) <= far * (1 + 1e-6)).sum())
        for rows, query, far in zip(found, queries, farthest) if len(rows) > 0
    )
    micros = np.sort(np.asarray(times)) * 1e6
    print_line(peer=peer, setting=setting, recall=round(hits / (K * len(queries)), 4),
               qps=round(len(queries) / best), cpu_us=round(cpu / len(queries) * 1e6, 1),
               p50_us=round(float(micros[len(micros) // 2]), 1),
               p99_us=round(float(micros[int(len(micros) * 0.99)]), 1))


def faiss_index(base, metric, description):
    import faiss

    # Unit vectors: cosine and L2 order alike, and L2 is what faiss is fastest at.
    index = faiss.index_factory(base.shape[1], description, faiss.METRIC_L2)
    index.train(base)
    index.add(base)
    faiss.omp_set_num_threads(1)
    return faiss, index


def faiss_search(index, parameters=None):
    return lambda query: index.search(query[None], K, params=parameters)[1][0]


def flat(base, metric, _work):
    _, index = faiss_index(base, metric, "Flat")
    return Settings("faiss-cpu", [("", faiss_search(index))])


def hnsw(base, metric, _work):
    import faiss

    index = faiss.IndexHNSWFlat(base.shape[1], 16, faiss.METRIC_L2)
    index.hnsw.efConstruction = 200
    index.add(base)
    faiss.omp_set_num_threads(1)
    efs = [32, 64, 96, 128, 160, 200, 256, 320, 400, 512, 768, 1024]
    return Settings("faiss-cpu", [(f"ef={ef}", faiss_search(index, faiss.SearchParametersHNSW(efSearch=ef))) for ef in efs])


def rabitq(base, metric, _work):
    lists = 1024 if len(base) <= 300_000 else 4096
    faiss, index = faiss_index(base, metric, f"IVF{lists},RaBitQfs,Refine(Flat)")
    searches = []
    for probes in [8, 16, 24, 32, 48, 64, 96, 128, 192]:
        for factor in [10, 30]:
            inner = faiss.SearchParametersIVF(nprobe=probes)
            parameters = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
            searches.append((f"nprobe={probes} k_factor={factor}", faiss_search(index, parameters)))
    return Settings("faiss-cpu", searches)


def qdrant(base, metric, work):
    import qdrant_edge as q

    distance = q.Distance.Cosine if metric == "cosine" else q.Distance.Euclid
    vectors = q.EdgeVectorParams(
        size=base.shape[1], distance=distance, on_disk=False,
        hnsw_config=q.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10),
        quantization_config=q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True),
    )
    optimizers = q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1, max_segment_size=10**9)
    folder = os.path.join(work, "qdrant")
    os.makedirs(folder, exist_ok=True)
    shard = q.EdgeShard.create(folder, q.EdgeConfig(vectors={"": vectors}, optimizers=optimizers, max_search_threads=1))
    for at in range(0, len(base), 2_000):
        points = [q.Point(id=at + i, vector=row.tolist()) for i, row in enumerate(base[at:at + 2_000])]
        shard.update(q.UpdateOperation.upsert_points(points))
    shard.optimize()

    def search(parameters):
        def run(query):
            request = q.SearchRequest(query=q.Query.Nearest(query.tolist()), limit=K, params=parameters)
            return [point.id for point in shard.search(request)]
        return run

    searches = []
    for ef in [32, 64, 96, 128, 192, 256, 384, 512]:
        quantization = q.QuantizationSearchParams(rescore=True, oversampling=2.0)
        searches.append((f"ef={ef} int8 oversampling=2", search(q.SearchParams(hnsw_ef=ef, quantization=quantization))))
    return Settings("qdrant-edge-py", searches)


def lancedb(base, metric, work):
    import lancedb
    import pyarrow as pa

    values = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), base.shape[1])
    rows = pa.table({"row": pa.array(np.arange(len(base), dtype=np.uint32)), "vector": values})
    table = lancedb.connect(os.path.join(work, "lancedb")).create_table("rows", rows, mode="overwrite")
    table.create_index(metric=metric, vector_column_name="vector", index_type="IVF_RQ",
                       num_partitions=1024 if len(base) <= 300_000 else 4096)

    def search(probes, refine):
        def run(query):
            found = table.search(query).distance_type(metric).nprobes(probes).refine_factor(refine).limit(K)
            return found.select(["row"]).to_arrow()["row"].to_numpy()
        return run

    searches = [(f"nprobes={p} refine={r}", search(p, r)) for p in [16, 32, 64, 96] for r in [5, 10]]
    return Settings("lancedb", searches)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def print_line(**values):
    print(json.dumps(values), flush=True)


PEERS = {"flat": flat, "hnsw": hnsw, "rabitq": rabitq, "qdrant": qdrant, "lancedb": lancedb}

if __name__ == "__main__":
    main()
