"""Measures a peer on a data set that `generate` wrote and `core` computed the exact answers of.

peers.py <peer> <directory> <dim> <cosine|l2> [part of a setting's name]    peer: hnsw | rabitq | flat | qdrant | lancedb

One thread, one query a call, the best of PASSES passes for the rate and all of them for percentiles, as
`core` measures. Prints one JSON object a line: first what the build cost, then one line for each search
setting (those whose name contains the last argument). Recall is that of the 10 nearest; a neighbour as near as
the tenth counts (ties).

A built index stays in <directory>/peers/<peer>-<version>/ with what building it cost, and later runs load it:
HNSW of a million rows takes a quarter of an hour on two busy cores, and says nothing meanwhile. Remove the
folder to build anew.
"""

import json
import os
import resource
import shutil
import sys
import time
from importlib.metadata import version

import numpy as np

K = 10
PASSES = 3
WARM_UP = 100


def main():
    name, directory, dim, metric = sys.argv[1:5]
    wanted = sys.argv[5] if len(sys.argv) > 5 else ""
    peer, dim = PEERS[name], int(dim)
    base = np.fromfile(f"{directory}/base.f32", dtype="<f4").reshape(-1, dim)
    queries = np.fromfile(f"{directory}/queries.f32", dtype="<f4").reshape(-1, dim)
    truth = np.fromfile(f"{directory}/truth-{metric}.u32", dtype="<u4").reshape(len(queries), -1)
    farthest = [np.linalg.norm(base[row[:K]] - q, axis=1).max() for row, q in zip(truth, queries)]
    package = f"{peer.PACKAGE} {version(peer.PACKAGE)}"
    folder = f"{directory}/peers/{name}-{version(peer.PACKAGE)}"
    cost = f"{folder}/build.json"
    if not os.path.exists(cost):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        print(f"{package} builds {name} of {len(base)} rows", file=sys.stderr, flush=True)
        began, cpu = time.perf_counter(), cpu_seconds()
        peer.build(base, metric, folder)
        # Written last: a build that was cut off has no costs, and is begun again.
        with open(cost, "w") as file:
            json.dump({"build_cpu_seconds": round(cpu_seconds() - cpu, 1),
                       "build_seconds": round(time.perf_counter() - began, 1),
                       "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}, file)
    with open(cost) as file:
        print_line(peer=name, version=package, rows=len(base), dim=dim, metric=metric, **json.load(file))
    for setting, search in peer.searches(metric, folder):
        if wanted in setting:
            measure(name, setting, search, base, queries, farthest)


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


class Faiss:
    """Unit vectors: cosine and L2 order alike, and L2 is what faiss is fastest at."""

    PACKAGE = "faiss-cpu"

    @classmethod
    def build(cls, base, _metric, folder):
        import faiss

        index = cls.trained(base)
        index.add(base)
        faiss.write_index(index, f"{folder}/index.faiss")

    @classmethod
    def searches(cls, _metric, folder):
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.read_index(f"{folder}/index.faiss")

        def search(parameters):
            return lambda query: index.search(query[None], K, params=parameters)[1][0]

        return [(name, search(parameters)) for name, parameters in cls.settings(faiss)]


class Flat(Faiss):
    @staticmethod
    def trained(base):
        import faiss

        return faiss.IndexFlatL2(base.shape[1])

    @staticmethod
    def settings(_faiss):
        return [("", None)]


class Hnsw(Faiss):
    @staticmethod
    def trained(base):
        import faiss

        index = faiss.IndexHNSWFlat(base.shape[1], 16, faiss.METRIC_L2)
        index.hnsw.efConstruction = 200
        return index

    @staticmethod
    def settings(faiss):
        efs = [32, 48, 52, 56, 64, 72, 80, 96, 128, 160, 200, 216, 232, 256, 320, 400, 512, 640, 768, 1024, 1536]
        return [(f"ef={ef}", faiss.SearchParametersHNSW(efSearch=ef)) for ef in efs]


class RaBitQ(Faiss):
    @staticmethod
    def trained(base):
        import faiss

        lists = 1024 if len(base) <= 300_000 else 4096
        index = faiss.index_factory(base.shape[1], f"IVF{lists},RaBitQfs,Refine(Flat)", faiss.METRIC_L2)
        index.train(base)
        return index

    @staticmethod
    def settings(faiss):
        for probes in [8, 16, 24, 28, 32, 40, 48, 64, 96, 128, 192]:
            for factor in [5, 10, 30]:
                inner = faiss.SearchParametersIVF(nprobe=probes)
                parameters = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
                yield f"nprobe={probes} k_factor={factor}", parameters


class Qdrant:
    PACKAGE = "qdrant-edge-py"

    @staticmethod
    def build(base, metric, folder):
        import qdrant_edge as q

        distance = q.Distance.Cosine if metric == "cosine" else q.Distance.Euclid
        vectors = q.EdgeVectorParams(
            size=base.shape[1], distance=distance, on_disk=False,
            hnsw_config=q.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10),
            quantization_config=q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True),
        )
        optimizers = q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1, max_segment_size=10**9)
        config = q.EdgeConfig(vectors={"": vectors}, optimizers=optimizers, max_search_threads=1)
        os.makedirs(f"{folder}/shard")
        shard = q.EdgeShard.create(f"{folder}/shard", config)
        for at in range(0, len(base), 2_000):
            points = [q.Point(id=at + i, vector=row.tolist()) for i, row in enumerate(base[at:at + 2_000])]
            shard.update(q.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.close()

    @staticmethod
    def searches(_metric, folder):
        import qdrant_edge as q

        shard = q.EdgeShard.load(f"{folder}/shard")

        def search(parameters):
            def run(query):
                request = q.SearchRequest(query=q.Query.Nearest(query.tolist()), limit=K, params=parameters)
                return [point.id for point in shard.search(request)]
            return run

        for ef in [32, 48, 56, 60, 64, 72, 80, 96, 128, 192, 256, 384, 512, 768, 1024]:
            quantization = q.QuantizationSearchParams(rescore=True, oversampling=2.0)
            yield f"ef={ef} int8 oversampling=2", search(q.SearchParams(hnsw_ef=ef, quantization=quantization))


class LanceDb:
    PACKAGE = "lancedb"

    @staticmethod
    def build(base, metric, folder):
        import lancedb
        import pyarrow as pa

        values = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), base.shape[1])
        rows = pa.table({"row": pa.array(np.arange(len(base), dtype=np.uint32)), "vector": values})
        table = lancedb.connect(folder).create_table("rows", rows, mode="overwrite")
        table.create_index(metric=metric, vector_column_name="vector", index_type="IVF_RQ",
                           num_partitions=1024 if len(base) <= 300_000 else 4096)

    @staticmethod
    def searches(metric, folder):
        import lancedb

        table = lancedb.connect(folder).open_table("rows")

        def search(probes, refine):
            def run(query):
                found = table.search(query).distance_type(metric).nprobes(probes).refine_factor(refine).limit(K)
                return found.select(["row"]).to_arrow()["row"].to_numpy()
            return run

        return [(f"nprobes={p} refine={r}", search(p, r)) for p in [16, 32, 64, 96, 192] for r in [5, 10, 30]]


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def print_line(**values):
    print(json.dumps(values), flush=True)


PEERS = {"flat": Flat, "hnsw": Hnsw, "rabitq": RaBitQ, "qdrant": Qdrant, "lancedb": LanceDb}

if __name__ == "__main__":
    main()
