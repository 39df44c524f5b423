"""Whoever asks an index whose shards a Ray cluster holds, in a process of its own; and the questions that are asked."""

from __future__ import annotations

import json
import sys
import threading
import time

import numpy as np

DIM, ROWS = 16, 900


def made(path, shards):
    """Make an index of random rows of 150 patients, some deleted; the same whatever the shards."""
    from retr import Index

    rng = np.random.default_rng(0)
    eyes, words = ["left", "right"], ["drusen", "no drusen", "clear", "haemorrhage and drusen"]
    rows = {
        "id": [f"r{at:04}" for at in range(ROWS)],
        "patient": [f"p{at // 6}" for at in range(ROWS)],
        "study": [f"s{at // 3}" for at in range(ROWS)],
        "eye": [eyes[at % 2] for at in range(ROWS)],
        "age": [None if at % 13 == 0 else int(rng.integers(20, 90)) for at in range(ROWS)],
        "report": [words[int(rng.integers(len(words)))] for _ in range(ROWS)],
    }
    # few directions: many scores tie
    vectors = rng.integers(-1, 2, (ROWS, DIM)).astype(np.float32) + np.float32(0.01)
    index = Index.from_vectors(vectors, rows, path, encoder="mine", fingerprint="1", group="patient")
    if shards > 1:
        index.shard(shards)
    index.delete(ids=[f"r{at:04}" for at in range(0, ROWS, 19)])
    return index


def questions(count):
    """Return ``(query, options)`` of random questions."""
    from retr import Query

    rng = np.random.default_rng(1)
    live = [at for at in range(ROWS) if at % 19]
    options = {
        "where": ["age >= 60", "eye = 'left' and age < 50", "patient in ('p3', 'p4', 'p120')", "age is null"],
        "one_per": ["patient", "eye"],
        "exclude_same": ["patient", ["study"], {"patient": ["p7", None]}],
        "min_score": [0.3],
        "offset": [0, 7],
        "diverse": [0.3],
        "exact": [True],
    }
    found = []
    for number in range(count):
        name = f"r{rng.choice(live):04}"
        query = Query.id(name) if number % 2 else Query.id(name) + Query.vector(rng.standard_normal(DIM)) * 0.5
        asked = {"k": int(rng.choice([1, 5, 40]))}
        if number % 10 == 0:
            asked |= {"item": ["patient", "study"][number // 10 % 2]}
            names = ["where", "min_score", "offset"]
        elif number % 10 == 1:
            query, asked = query + Query.text("drusen"), {**asked, "in_": "report"}
            names = ["where", "one_per", "exclude_same"]
        else:
            names = list(options)
        for name in names:
            if rng.random() < 0.3 and not (name == "exclude_same" and number % 2 == 0):
                asked[name] = options[name][int(rng.integers(len(options[name])))]
        found.append((query, asked))
    return found


def answered(index, some):
    """Return what answers each question, as text that is equal where answers are, to the bit of a score."""
    found = []
    for query, asked in some:
        hits = index.search(query, **asked)
        extra = [hits.cases, hits.parts, hits.weights, hits.note, hits.exact, hits.searched]
        found.append(json.dumps([hits.ids, hits.scores.tobytes().hex(), *extra]))
    return found


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main():
    from retr import Index
    from retr.retrieval.cluster.connection import Connection
    from retr.serve.app import create_app
    from retr.serve.settings import Settings

    path, address = sys.argv[1:3]
    some = questions(200)
    connection = Connection(address)
    while len({place.node for place in connection.places()}) < 2:
        time.sleep(0.05)
    index = Index.open(path, ray=address, shard_seconds=600)
    found = answered(index, some[:60])
    killed = threading.Event()

    def listen():
        sys.stdin.readline()
        killed.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    # what is being asked when the other node goes is answered as well
    say("asking")
    meanwhile = []
    while not killed.is_set():
        at = len(meanwhile) % 60
        meanwhile += answered(index, some[at : at + 1])
    found += answered(index, some[60:160])
    say("answered")
    # another process commits
    sys.stdin.readline()
    moved = index.refresh()
    found += answered(index, some[160:])
    index.close()
    # and a server, which asks processes of its own
    from fastapi.testclient import TestClient

    with TestClient(create_app({"x": path}, Settings(), {"ray": address}), base_url="http://localhost:7860") as client:
        body = {"questions": [{"parts": [{"id": "r0001"}]}], "k": 9, "exclude_same": {"patient": None}}
        served = client.post("/v1/indexes/x/search", json=body).json()["answers"][0]
    connection.close()
    say(json.dumps({"found": found, "meanwhile": meanwhile, "moved": moved, "served": served}))


if __name__ == "__main__":
    main()
