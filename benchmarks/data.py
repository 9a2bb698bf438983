"""How fast does text become batches? unmask beside the libraries under it, HF datasets, datatrove and collators.

    python benchmarks/data.py --corpus CORPUS.jsonl.gz --t5 DIR --wordpiece DIR --peer t5-mlm-collator=DIR

- clean: the C4 preset beside datatrove alone (the same rules by its own steps), on one core;
- tokenise: texts in memory to lists of ids, on all cores, beside the library alone, Transformers' tokenizers and
  HF datasets' `map` (which writes an Arrow file); T5 whole documents, WordPiece lines;
- pack: `unmask pack`, from a file to checked shards, on all cores, beside the library alone twice: in memory, as
  above, and with the least that makes a file of tokens of a file of texts;
- objective: batches of 128 examples of at most 512 tokens, on one core. unmask's are the ragged batches that its
  stream fetches from the corpus; the collators get full rectangles of random ids, in the fastest form they take;
- stream: the same with reading: `batches[k]`;
- wait: the share of its time that training waits for batches when it takes 100,000 tokens a second, its device
  working elsewhere (it sleeps) or, `wait-busy`, on these cores (it multiplies matrices with all threads); read by a
  thread, or by one process (`unmask pretrain --data-workers 1`).

Each engine lives in a process of its own and they take turns in every round; numbers are medians. Beside a speed
stands how many tokens, documents or examples came out; where engines differ in it, that is said. Without options it
runs on the sample corpus with vocabularies trained on it. A peer that is not installed, or that is on no registry
and was not given with `--peer NAME=DIR` (t5-mlm-collator: a checkout of Transformers that has it), is left out and
named.

Needs the peers: pip install transformers datasets datatrove orjson langdetect spacy.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from engines import PEERS, Engine, Measured, start, take_turns

from unmask.objectives.text_to_text import T5Objective

sys.path.append(str(PEERS))
from data_texts import BAD_WORDS, TEXTS

#: Where a peer that is on no registry finds its checkout.
CHECKOUTS = {"t5-mlm-collator": "T5_MLM_CHECKOUT"}
ALL_CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """Work that several engines do.

    Attributes:
        engines: by name, "unmask" first.
        unit: what is counted a second.
        threads: that each engine may use.
        repeats: of the work in one measurement.
        against: the engine that unmask is compared with, and the ratio to reach.
        least: units a second to reach.
    """

    engines: dict[str, Engine]
    unit: str
    threads: int = 1
    repeats: int = 1
    against: dict[str, float] = field(default_factory=dict)
    least: float = 0.0


def _ours(work: str) -> dict[str, Engine]:
    return {"unmask": Engine("data_ours", work, "unmask")}


def _library(kind: str, library: str, vocabulary: str) -> Engine:
    return Engine("data_library", f"{kind} {library} {vocabulary}", library)


def _tokenise(vocabulary: str) -> Job:
    """Beside the library that unmask calls, the others, and `map` with one process and with one a core."""
    engines = {library: _library("tokenise", library, vocabulary) for library in LIBRARIES[vocabulary]}
    engines["transformers"] = Engine("data_hf", f"tokenise {vocabulary}", "transformers")
    mapped = [("transformers", 1), ("transformers", ALL_CORES)]
    if "sentencepiece" in engines:
        mapped.append(("sentencepiece", ALL_CORES))
    for engine, processes in mapped:
        name = f"datasets map, {engine}" + (", a process a core" if processes > 1 else "")
        engines[name] = Engine("data_hf", f"map {vocabulary} {engine} {processes}", "datasets")
    against = {LIBRARIES[vocabulary][0]: 1 / 1.1}
    return Job({**_ours(f"tokenise {vocabulary}"), **engines}, "bytes", threads=ALL_CORES, against=against)


def _pack(vocabulary: str) -> Job:
    library = LIBRARIES[vocabulary][0]
    peers = {
        f"{library}, in memory": _library("tokenise", library, vocabulary),
        f"{library}, file to file": _library("pack", library, vocabulary),
    }
    against = dict.fromkeys(peers, 1 / 1.1)
    return Job({**_ours(f"pack {vocabulary}"), **peers}, "bytes", threads=ALL_CORES, against=against)


def _objective(name: str) -> Job:
    peer, goal = COLLATORS.get(name, ({}, 0.0))
    return Job(
        {**_ours(f"objective {name}"), **peer},
        "tokens",
        repeats=16,
        against=dict.fromkeys(peer, goal),
        least=5e6,
    )


#: The libraries that tokenise with a vocabulary, first the one that unmask calls.
LIBRARIES = {"t5": ["sentencepiece", "tokenizers"], "wordpiece": ["tokenizers"]}
#: Objective → the collator that does the same, and the ratio to reach.
COLLATORS = {
    "span-corruption": ({"t5-mlm-collator": Engine("data_t5_mlm", "collator", "transformers")}, 2.0),
    "replaced-tokens": (
        {"DataCollatorForLanguageModeling": Engine("data_hf", "collator", "transformers")},
        5.0,
    ),
}
STREAMED = ("span-corruption", "ul2", "replaced-tokens")

JOBS: dict[str, Job] = {
    "clean": Job(
        {**_ours("clean c4"), "datatrove": Engine("data_datatrove", "clean", "datatrove")},
        "bytes",
        against={"datatrove": 1 / 1.2},
    ),
    **{f"tokenise {vocabulary}": _tokenise(vocabulary) for vocabulary in LIBRARIES},
    **{f"pack {vocabulary}": _pack(vocabulary) for vocabulary in LIBRARIES},
    **{
        f"objective {name}": _objective(name)
        for name in (*get_args(T5Objective), "replaced-tokens", "masked-diffusion")
    },
    **{f"stream {name}": Job(_ours(f"stream {name}"), "tokens", repeats=16) for name in STREAMED},
    **{
        f"{kind} {name}": Job(_ours(f"{kind} {name}"), "seconds", threads=ALL_CORES, repeats=24)
        for kind in ("wait", "wait-process", "wait-busy", "wait-busy-process")
        for name in STREAMED
    },
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="JSON lines with a text, gzipped")
    parser.add_argument("--megabytes", type=float, default=32.0, help="how much of it")
    parser.add_argument("--t5", type=Path, help="directory of a T5 tokenizer")
    parser.add_argument("--wordpiece", type=Path, help="directory of an ELECTRA or BERT tokenizer")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=DIR", help=", ".join(CHECKOUTS))
    parser.add_argument(
        "--jobs", default="", help="those whose names begin with one of these, comma-separated"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# --- what the engines are given --------------------------------------------------------------------------


def prepare(folder: Path, options: argparse.Namespace, jobs: list[str]) -> None:
    """Texts, vocabularies and, where batches are made of them, shards."""
    from data_ours import pack_texts

    texts = list(_texts(options.corpus or [_sample()], options.megabytes * 1e6))
    with (folder / TEXTS).open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            row = {"id": str(number), "text": text, "url": f"https://example.org/{number}"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    # As many words as C4's list, so that its step costs what it costs; hardly any is met.
    (folder / BAD_WORDS).write_text("\n".join(f"unwanted{number}word" for number in range(400)))
    _vocabularies(folder, options, texts)
    for name in ("t5", "wordpiece"):
        if any(job.startswith(("objective", "stream", "wait")) for job in jobs):
            pack_texts(folder, name, folder / f"shards-{name}")


def _sample() -> Path:
    import unmask

    return Path(unmask.__file__).parent / "sample" / "corpus.jsonl.gz"


def _texts(files: list[Path], most: float) -> Iterator[str]:
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                most -= len(text.encode())
                if most < 0:
                    return
                yield text


def _vocabularies(folder: Path, options: argparse.Namespace, texts: list[str]) -> None:
    from unmask.electra.tokenizer import ElectraTokenizer
    from unmask.t5.tokenizer import T5Tokenizer

    sources = {"t5": (T5Tokenizer, options.t5), "wordpiece": (ElectraTokenizer, options.wordpiece)}
    for name, (kind, given) in sources.items():
        tokenizer = kind.train(texts, 8000) if given is None else kind.from_pretrained(given)
        tokenizer.save_pretrained(folder / name)


# --- measuring -------------------------------------------------------------------------------------------


def with_checkouts(engines: dict[str, Engine]) -> dict[str, Engine]:
    """Without those whose checkout was not given; they are named."""
    absent = {name for name, variable in CHECKOUTS.items() if name in engines and variable not in os.environ}
    for name in absent:
        print(f"    {name}: give --peer {name}=DIR")
    return {name: engine for name, engine in engines.items() if name not in absent}


def summarise(job: Job, done: dict[str, Measured], errors: dict[str, str]) -> dict[str, Any]:
    summary: dict[str, Any] = {"errors": errors, "speeds": {}, "ratios": {}, "counts": {}}
    if job.unit == "seconds" and "unmask" in done:
        # The first batch is waited for whatever comes after it.
        results = done["unmask"].results
        waits = [(waited - first) / (total - first) for total, waited, first in results]
        return summary | {
            "waiting": statistics.median(waits),
            "first": statistics.median(first for *_, first in results),
        }
    speeds = {engine: its.first[0] / statistics.median(its.seconds) for engine, its in done.items()}
    ratios = {
        peer: (speeds["unmask"] / speeds[peer], goal)
        for peer, goal in job.against.items()
        if peer in speeds and "unmask" in speeds
    }
    counts = {engine: its.first[1] for engine, its in done.items()}
    return summary | {"speeds": speeds, "ratios": ratios, "counts": counts}


def show(name: str, job: Job, summary: dict[str, Any]) -> None:
    cores = f"{job.threads} threads" if job.threads > 1 else "1 thread"
    print(f"  {name}, {cores}")
    for engine, error in summary["errors"].items():
        print(f"    {engine:46} - {error}")
    if "waiting" in summary:
        print(f"    waits {summary['waiting']:.3%} of its time; {summary['first']:.2f} s for the first batch")
        return
    unit = "MB/s" if job.unit == "bytes" else "M tokens/s"
    for engine, speed in summary["speeds"].items():
        print(f"    {engine:46}{speed / 1e6:10.2f} {unit:12}{summary['counts'][engine]:12,.0f}")
    if len(summary["counts"]) > 1 and len(set(summary["counts"].values())) > 1:
        print("    counts differ")
    for peer, (ratio, goal) in summary["ratios"].items():
        print(f"    unmask / {peer}: {ratio:.2f} (goal {goal:.2f})")
    if job.least and not summary["ratios"]:
        print(f"    goal: {job.least / 1e6:.0f} M tokens/s")


def main() -> None:
    options = arguments()
    wanted = tuple(options.jobs.split(","))
    jobs = {name: job for name, job in JOBS.items() if name.startswith(wanted)}
    for peer in options.peer:
        name, _, directory = peer.partition("=")
        os.environ[CHECKOUTS[name]] = str(Path(directory).resolve())
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options, list(jobs))
        size = (folder / TEXTS).stat().st_size / 1e6
        print(f"{size:.1f} MB of text, {ALL_CORES} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        for name, job in jobs.items():
            workers = start(with_checkouts(job.engines), folder, job.threads)
            summary = summarise(job, *take_turns(workers, options.rounds, repeats=job.repeats))
            show(name, job, summary)
            sys.stdout.flush()
            report[name] = summary
            for worker in workers.values():
                worker.close()
            if options.json:
                options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
