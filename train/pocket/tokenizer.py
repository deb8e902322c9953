"""CLIP's byte-pair tokenizer, whole (registry/clip_bpe) and cut down to pocket's captions (about 4,600 tokens).

Cutting keeps all 256 bytes, the most frequent merges and every merge on the way to a caption's word: known words split as in CLIP, and any
Unicode text still becomes tokens.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path

from train.pocket.captions import vocabulary

BPE_FILE = "open_clip/bpe_simple_vocab_16e6.txt.gz"  # in the wheel of open_clip_torch, MIT
MERGES = 49152 - 256 - 2  # of the file's lines, those CLIP uses
FREQUENT = 1000
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 32


def read_merges(work: Path) -> list[tuple[str, str]]:
    """CLIP's 48,894 merges in order, from open_clip_torch's wheel (fetched by pip into the work folder when it is not there)."""
    wheels = sorted(work.glob("open_clip_torch-*.whl"))
    if not wheels:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "open_clip_torch", "-d", str(work)], check=True)
        wheels = sorted(work.glob("open_clip_torch-*.whl"))
    with zipfile.ZipFile(wheels[-1]) as wheel:
        lines = gzip.decompress(wheel.read(BPE_FILE)).decode().split("\n")[1 : MERGES + 1]
    return [(a, b) for a, b in (line.split() for line in lines)]


def byte_letters() -> dict[int, str]:
    """A printable character for each byte, in CLIP's (GPT-2's) order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def path(word: str, rank: dict[tuple[str, str], int]) -> set[int]:
    """Ranks of the merges that build this word."""
    letters = byte_letters()
    parts = [letters[b] for b in word.encode()]
    parts[-1] += "</w>"
    used: set[int] = set()
    while len(parts) > 1:
        best = min(((rank[p], i) for i, p in enumerate(pairwise(parts)) if p in rank), default=None)
        if best is None:
            break
        used.add(best[0])
        pair, joined, i = (parts[best[1]], parts[best[1] + 1]), [], 0
        while i < len(parts):
            step = 2 if tuple(parts[i : i + 2]) == pair else 1
            joined.append("".join(parts[i : i + step]))
            i += step
        parts = joined
    return used


def write_table(folder: Path, merges: list[tuple[str, str]]) -> int:
    """Write vocab.json and merges.txt; the number of tokens."""
    letters = list(byte_letters().values())
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges), START, END]
    vocab = {t: i for i, t in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ValueError("two merges give one token")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    return len(vocab)


def write_clip(work: Path) -> None:
    """CLIP's whole table in WORK/clip_bpe, as registry/clip_bpe carries it: 49,408 tokens."""
    count = write_table(work / "clip_bpe", read_merges(work))
    print(f"clip_bpe: {count} tokens", flush=True)


def write(work: Path) -> None:
    """Pocket's tokenizer in WORK/tokenizer: vocab.json, merges.txt and the fast tokenizer.json."""
    from transformers import CLIPTokenizer

    merges = read_merges(work)
    rank = {m: i for i, m in enumerate(merges)}
    kept = set(range(FREQUENT)).union(*(path(w, rank) for w in vocabulary(work)))
    folder = work / "tokenizer"
    with tempfile.TemporaryDirectory() as table:
        count = write_table(Path(table), [merges[i] for i in sorted(kept)])
        vocab = json.loads((Path(table) / "vocab.json").read_text(encoding="utf-8"))
        pairs = [tuple(line.split()) for line in (Path(table) / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
        tokenizer = CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=MAX_TOKENS, pad_token=END)
        tokenizer.save_pretrained(folder)
        for name in ("vocab.json", "merges.txt"):  # transformers 5 writes tokenizer.json only
            (folder / name).write_bytes((Path(table) / name).read_bytes())
    print(f"tokenizer: {count} tokens", flush=True)
