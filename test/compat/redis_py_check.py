"""Runs redis-py's own vector-set commands against a query node and prints what they return, as JSON."""

import json
import sys

import redis


def main() -> None:
    host, port, protocol = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client = redis.Redis(host=host, port=port, protocol=protocol, decode_responses=True)
    key = f"py{protocol}"
    vectors = client.vset()
    seen = {
        "ping": client.ping(),
        "added": vectors.vadd(key, [1, 0], "east", attributes={"side": "e"}),
        "also": vectors.vadd(key, [0, 1], "north"),
        "replaced": vectors.vadd(key, [0, 1], "north"),
        "card": vectors.vcard(key),
        "dim": vectors.vdim(key),
        "embedding": vectors.vemb(key, "east"),
        "similar": vectors.vsim(key, [1, 0]),
        "by_element": vectors.vsim(key, "north", count=1),
        "scores": vectors.vsim(key, [1, 0], with_scores=True),
        "attributes": vectors.vsim(key, [1, 0], with_attribs=True),
        "both": vectors.vsim(key, [1, 0], with_scores=True, with_attribs=True),
        "near": vectors.vsim(key, [1, 0], epsilon=0.1),
        "attr": vectors.vgetattr(key, "east"),
        "set": vectors.vsetattr(key, "north", {"side": "n"}),
        "size": vectors.vinfo(key)["size"],
        "removed": vectors.vrem(key, "east"),
        "nothing": vectors.vrem(key, "east"),
    }
    print(json.dumps(seen))


main()
