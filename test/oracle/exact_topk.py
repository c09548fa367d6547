"""Exact top-k over live Parquet files with pyarrow and numpy, in float64.

stdin: {"data": [...], "deletes": [...], "ranks": {"<source>": n}, "metric": ..., "k": n, "queries": [[...]]}
stdout: per query, the k nearest as [distance, id], and every id with its distance up to the k-th plus a margin.

Newest position of a key wins: source rank, log time, partition, offset. Written from the columns alone.
"""

import json
import sys

import numpy as np
import pyarrow.parquet as pq

MARGIN = 1e-4


def newest(request):
    """id -> (order, vector or None for a delete)"""
    found = {}
    for files, deleted in ((request["data"], False), (request["deletes"], True)):
        for name in files:
            table = pq.read_table(name, partitioning=None)
            count = table.num_rows
            vectors = [None] * count
            if not deleted and count > 0:
                column = table.column("vector").combine_chunks()
                flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
                vectors = flat.reshape(count, -1)
            columns = [table.column(c).cast("int64").to_pylist() for c in ("source", "kafka_partition", "kafka_offset")]
            times = table.column("log_time").cast("int64").to_pylist()
            for row, key in enumerate(table.column("id").to_pylist()):
                source, partition, offset = (column[row] for column in columns)
                order = (request["ranks"][str(source)], times[row], partition, offset)
                if key not in found or order > found[key][0]:
                    found[key] = (order, vectors[row])
    return {key: vector for key, (_, vector) in found.items() if vector is not None}


def distances(metric, matrix, query):
    if metric == "cosine":
        return 1 - (matrix @ query) / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(query))
    if metric == "l2":
        return np.linalg.norm(matrix - query, axis=1)
    return -(matrix @ query)


request = json.load(sys.stdin)
live = newest(request)
ids = list(live)
matrix = np.stack([live[key] for key in ids])
answers = []
for query in request["queries"]:
    found = distances(request["metric"], matrix, np.asarray(query, dtype=np.float64))
    order = np.argsort(found, kind="stable")
    last = found[order[request["k"] - 1]]
    close = order[: int(np.searchsorted(found[order], last + MARGIN * max(1.0, abs(last)), side="right"))]
    answers.append([[float(found[i]), ids[i]] for i in close])
json.dump({"live": len(ids), "answers": answers}, sys.stdout)
