"""Measures qdrant-edge with filters on a data set that `generate` wrote.

filters.py <directory> <dim> <cosine|l2> [case,case…]

The shard has integer indexes on both attributes before its graph is built, as qdrant advises, and stays
in <directory>/qdrant-filters, so that a second run does not build it again. Cases and their exact answers
are what crates/lsm/examples/filters.rs wrote beside the data: filters.json and truth-filter-<case>.u32.

One thread, one query a call, requests made beforehand; PASSES passes over each setting after one to warm
up. Prints one JSON object a line: what the build cost (0 where the shard was there), then a line for each
case and setting. Recall is that of the nearest 10 that pass; a neighbour as near as the last one counts.
"""

import json
import os
import resource
import sys
import time
from importlib.metadata import version

import numpy as np
import qdrant_edge as q

K = 10
PASSES = 3
UPSERT_ROWS = 2_000
NO_ROW = 2**32 - 1
EFS = [32, 64, 128, 256, 512]


def main():
    directory, dim, metric = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    base = np.memmap(f"{directory}/base.f32", dtype="<f4", mode="r").reshape(-1, dim)
    queries = np.fromfile(f"{directory}/queries.f32", dtype="<f4").reshape(-1, dim)
    began, cpu = time.perf_counter(), cpu_seconds()
    shard, built = open_shard(directory, base, metric)
    print_line(peer="qdrant", version=f"qdrant-edge-py {version('qdrant-edge-py')}", rows=len(base), dim=dim,
               metric=metric, built=built, build_cpu_seconds=round(cpu_seconds() - cpu, 1) if built else 0,
               build_seconds=round(time.perf_counter() - began, 1) if built else 0)
    if not os.path.exists(f"{directory}/filters.json"):
        return
    with open(f"{directory}/filters.json") as file:
        cases = json.load(file)
    wanted = sys.argv[4].split(",") if len(sys.argv) > 4 else [case["name"] for case in cases]
    for case in cases:
        if case["name"] in wanted:
            measure_case(shard, case, directory, base, queries, metric)


def open_shard(directory, base, metric):
    """The shard beside the data, and whether it had to be built."""
    folder = os.path.join(directory, "qdrant-filters")
    done = os.path.join(folder, "complete")
    if os.path.exists(done):
        return q.EdgeShard.load(folder), False
    os.makedirs(folder)
    distance = q.Distance.Cosine if metric == "cosine" else q.Distance.Euclid
    vectors = q.EdgeVectorParams(
        size=base.shape[1], distance=distance, on_disk=False,
        hnsw_config=q.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10_000),
        quantization_config=q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True),
    )
    optimizers = q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1, max_segment_size=10**9)
    shard = q.EdgeShard.create(folder, q.EdgeConfig(vectors={"": vectors}, optimizers=optimizers, max_search_threads=1))
    attributes = {"bucket": read_u32(directory, "buckets", len(base)), "topic": read_u32(directory, "topics", len(base))}
    for name in attributes:
        shard.update(q.UpdateOperation.create_field_index(name, q.PayloadSchemaType.Integer))
    for at in range(0, len(base), UPSERT_ROWS):
        points = [q.Point(id=row, vector=base[row].tolist(),
                          payload={name: int(values[row]) for name, values in attributes.items()})
                  for row in range(at, min(at + UPSERT_ROWS, len(base)))]
        shard.update(q.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    open(done, "w").close()
    return shard, True


def measure_case(shard, case, directory, base, queries, metric):
    """Every setting over one case; `case` has a name, and per query a bucket limit, a topic, or neither."""
    truth = np.fromfile(f"{directory}/truth-filter-{case['name']}.u32", dtype="<u4").reshape(len(queries), K)
    filters = [filter_of(case, row) for row in range(len(queries))]
    for acorn in [False, True] if filters[0] is not None else [False]:
        for ef in EFS:
            quantization = q.QuantizationSearchParams(rescore=True, oversampling=2.0)
            parameters = q.SearchParams(hnsw_ef=ef, quantization=quantization,
                                        acorn=q.AcornSearchParams(enable=True) if acorn else None)
            requests = [q.SearchRequest(query=q.Query.Nearest(query.tolist()), limit=K, params=parameters, filter=each)
                        for query, each in zip(queries, filters)]
            measure(shard, case["name"], f"ef={ef}{' acorn' if acorn else ''}", requests, truth, base, queries, metric)


def filter_of(case, row):
    if case.get("bucketBelow") is not None:
        condition = q.FieldCondition(key="bucket", range=q.RangeFloat(lt=float(case["bucketBelow"])))
    elif case.get("topics") is not None:
        condition = q.FieldCondition(key="topic", match=q.MatchValue(case["topics"][row]))
    else:
        return None
    return q.Filter(must=[condition])


def measure(shard, case, setting, requests, truth, base, queries, metric):
    found = [[point.id for point in shard.search(request)] for request in requests]
    times, cpu = [], time.process_time()
    for _ in range(PASSES):
        for request in requests:
            start = time.perf_counter()
            shard.search(request)
            times.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    micros = np.sort(np.asarray(times)) * 1e6
    print_line(peer="qdrant", case=case, setting=setting, recall=round(recall(found, truth, base, queries, metric), 4),
               cpu_us=round(cpu / len(times) * 1e6, 1), p50_us=round(float(micros[len(micros) // 2]), 1),
               p99_us=round(float(micros[int(len(micros) * 0.99)]), 1))


def recall(found, truth, base, queries, metric):
    hits = wanted = 0
    for rows, exact, query in zip(found, truth, queries):
        exact = exact[exact != NO_ROW]
        if len(exact) == 0:
            continue
        far = np.linalg.norm(base[exact] - query, axis=1).max()
        wanted += len(exact)
        if rows:
            hits += int((np.linalg.norm(base[np.asarray(rows[:K])] - query, axis=1) <= far * (1 + 1e-6)).sum())
    return hits / wanted


def read_u32(directory, name, rows):
    path = f"{directory}/{name}.u32"
    return np.fromfile(path, dtype="<u4") if os.path.exists(path) else np.zeros(rows, dtype="<u4")


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def print_line(**values):
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
