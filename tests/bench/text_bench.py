"""Tokenizing the Python documentation: ours against `tokenizers`, on the same number of threads, in turn. Used by data_bench.py."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "parity"))
import text_kinds
import tokenizers
from transformers import AutoTokenizer

root = pathlib.Path(__file__).parents[2]
docs = root / "data/pydocs/documents.jsonl"


def texts():
    with open(docs, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def reference(path, threads):
    """Seconds, best of five, in a process of its own: the pool of threads is made once."""
    code = f"""
import json, time, tokenizers
tokenizer = tokenizers.Tokenizer.from_file({str(path)!r})
tokenizer.no_truncation(); tokenizer.no_padding()
texts = [json.loads(line)["text"] for line in open({str(docs)!r}, encoding="utf-8")]
best = 1e9
for _ in range(5):
    start = time.perf_counter()
    encodings = tokenizer.encode_batch_fast(texts)
    best = min(best, time.perf_counter() - start)
print(best, sum(len(e.ids) for e in encodings))
"""
    variables = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    return run([sys.executable, "-c", code], variables)


def run(command, variables=None):
    seconds, tokens = subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), int(tokens)


def paths(folder):
    AutoTokenizer.from_pretrained(root / "models/smollm2-135m", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").backend_tokenizer.save(str(folder / "smollm.json"))
    yield "smollm", folder / "smollm.json"
    yield "minilm", root / "models/minilm/tokenizer.json"
    text = "".join(texts())[:1_000_000]
    for name, tokenizer in text_kinds.kinds(text):
        if name in ("llama3", "llama2-first", "gemma", "t5"):
            (folder / f"{name}.json").write_text(json.dumps(tokenizer), encoding="utf-8")
            yield name, folder / f"{name}.json"


def ratios(program):
    """For each tokenizer and number of threads how many times as fast as theirs ours is; prints MB/s of both."""
    megabytes = sum(len(text.encode()) for text in texts()) / 1e6
    print(f"{'tokenizer':14} {'threads':>7} {'ours MB/s':>10} {'theirs':>8} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in paths(pathlib.Path(folder)):
            for threads in (1, 2):
                (ours, our_tokens), (theirs, their_tokens) = run([program, str(path), str(docs), str(threads)]), reference(path, threads)
                assert our_tokens == their_tokens, (name, our_tokens, their_tokens)
                print(f"{name:14} {threads:7} {megabytes / ours:10.1f} {megabytes / theirs:8.1f} {theirs / ours:6.2f}", flush=True)
                yield name, threads, theirs / ours
