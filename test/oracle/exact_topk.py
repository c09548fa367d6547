"""Exact nearest neighbours over live Parquet files, read by pyarrow, computed in float64.

stdin:  {"data": [...], "deletes": [...], "ranks": {"<source>": n}, "metric": ..., "k": n, "queries": [[...]]}
stdout: {"live": n, "answers": [[[distance, id], ...], ...]}, each answer sorted, with everything as near as
        the k-th and a margin more, so that ties can be judged.

The newest position of a key wins: source rank, log time, partition, offset. That, and nothing else of
VexLake, is known here; the columns say the rest.
"""

import json
import math
import sys
from operator import mul

import pyarrow as pa
import pyarrow.parquet as pq

MARGIN = 1e-4


def dot(a, b):
    return math.fsum(map(mul, a, b))


def live_vectors(request):
    newest = {}
    for files, deleted in ((request["data"], False), (request["deletes"], True)):
        for name in files:
            table = pq.ParquetFile(name).read()
            numbers = [
                table.column(column).cast(pa.int64()).to_pylist()
                for column in ("source", "log_time", "kafka_partition", "kafka_offset")
            ]
            vectors = [None] * table.num_rows if deleted else table.column("vector").to_pylist()
            for row, key in enumerate(table.column("id").to_pylist()):
                source, *rest = (column[row] for column in numbers)
                position = (request["ranks"][str(source)], *rest)
                if key not in newest or position > newest[key][0]:
                    newest[key] = (position, vectors[row])
    return {key: vector for key, (_, vector) in newest.items() if vector is not None}


def distance(metric, vector, query):
    if metric == "cosine":
        return 1 - dot(vector, query) / math.sqrt(dot(vector, vector) * dot(query, query))
    if metric == "l2":
        return math.dist(vector, query)
    return -dot(vector, query)


def answer(request, live, query):
    found = sorted((distance(request["metric"], vector, query), key) for key, vector in live.items())
    last = found[request["k"] - 1][0]
    limit = last + MARGIN * max(1.0, abs(last))
    return [one for one in found if one[0] <= limit]


request = json.load(sys.stdin)
live = live_vectors(request)
answers = [answer(request, live, query) for query in request["queries"]]
json.dump({"live": len(live), "answers": answers}, sys.stdout)
