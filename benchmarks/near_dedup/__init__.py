"""Near-duplicates among 100,000 chunks of source and mutants of them, beside four known programs; compared per byte."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from statistics import median

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import RESULTS, Limit, Ratio, Report, alternated, told
from benchmarks.near_dedup import corpus
from benchmarks.near_dedup.exact import agreement, similar_pairs
from benchmarks.peers import python, reason_missing
from platform_site.engines.place import ROOT

OURS = "platform"
PEERS = {
    "datasketch": "MinHash in bulk with xxhash, and MinHashLSH",
    "rensa": "RMinHashDeduplicator, all documents in one call",
    "datatrove": "the four stages of its MinHash example",
    "data_juicer": "its document_minhash_deduplicator",
}
TARGETS = {"datasketch": 20.0, "rensa": 5.0, "datatrove": 30.0, "data_juicer": 30.0}
MIN_RECALL, MIN_PRECISION = 0.98, 0.99
CHECKED = 4_000  # documents whose pairs are all compared
WEIGHED = 40_000  # documents whose index is weighed, and half of them
FIRST_TRY = 400  # documents that tell how many make a round
ROUND_S = 7.0
HALF = (0.4, 0.6)
CALL_S = 300.0
MAX_BYTES_A_DOCUMENT = 350
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "0",
}
SCRIPT = Path(__file__).parent / "contender.py"


def run(peers: Sequence[str], chunks: int = corpus.CHUNKS, round_s: float = ROUND_S) -> Report:
    report = Report("near_dedup")
    with ExitStack() as stack:
        path = stack.enter_context(_corpus(report, chunks))
        contenders = {OURS: stack.enter_context(_contender(OURS, Path(sys.executable), path))}
        for peer in peers:
            reason = reason_missing(peer)
            if reason is None:
                contenders[peer] = stack.enter_context(_contender(peer, python(peer), path))
            else:
                report.failed_peers[peer] = reason
        _check(report, contenders, path)
        samples = _samples(report, contenders, round_s)
        measured = _measured(contenders, samples)
        for name, contender in contenders.items():
            report.commands[name] = contender.command
            report.ours[f"{name}_peak_mib"] = contender.memory.peak_bytes / 2**20
    _judge(report, measured)
    return report


@contextmanager
def _corpus(report: Report, chunks: int) -> Iterator[Path]:
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="near_dedup-", dir=RESULTS) as folder:
        path = Path(folder) / "corpus.jsonl"
        report.ours["documents"] = corpus.write(path, chunks)
        report.ours["mebibytes"] = path.stat().st_size / 2**20
        yield path


def _contender(name: str, interpreter: Path, path: Path) -> Actor:
    env = ONE_THREAD | {"PYTHONPATH": str(ROOT) if name == OURS else "", "DJANGO_SETTINGS_MODULE": ""}
    return Actor.script(interpreter, SCRIPT, name, str(path.relative_to(ROOT)), env=env)


def _check(report: Report, contenders: dict[str, Actor], path: Path) -> None:
    """What each leaves out of a sample, and ours against all pairs of it, before any of them is timed."""
    checked = min(CHECKED, report.ours["documents"])
    with path.open() as file:
        texts = [json.loads(line)["text"] for line in islice(file, checked)]
    pairs = similar_pairs(texts, corpus.SHINGLE_TOKENS, 0.7)
    names = contenders[OURS].call("clusters", timeout_s=CALL_S, documents=checked)
    recall, precision = agreement(names, pairs)
    report.ours |= {"pairs_in_the_sample": len(pairs), "recall": recall, "precision": precision}
    report.checks["of pairs with a similarity of .7 or more 98 % end up in one cluster"] = recall >= MIN_RECALL
    report.checks["of pairs in one cluster 99 % are connected by such pairs"] = precision >= MIN_PRECISION
    weighed = min(WEIGHED, report.ours["documents"])
    a_document = contenders[OURS].call("bytes_a_document", timeout_s=CALL_S, documents=weighed)
    report.limits["bytes_a_document"] = Limit(a_document, MAX_BYTES_A_DOCUMENT)
    for name, contender in list(contenders.items()):
        try:
            left_out = contender.call("measure", timeout_s=CALL_S, documents=checked)["left_out"]
            report.ours[f"{name}_left_out_of_{checked}"] = left_out
        except ActorFailed as error:
            _fail(report, contenders, name, error)


def _samples(report: Report, contenders: dict[str, Actor], round_s: float) -> dict[str, int]:
    """How many documents keep each contender busy for a round."""
    samples = {}
    for name, contender in list(contenders.items()):
        documents, seconds = FIRST_TRY, 0.0
        try:
            while documents < report.ours["documents"] and seconds < round_s / 3:
                seconds = contender.call("measure", timeout_s=CALL_S, documents=documents)["seconds"]
                wanted = documents * min(round_s / seconds, 8.0)  # what is slow to start looks slower than it is
                documents = min(int(wanted), report.ours["documents"])
        except ActorFailed as error:
            _fail(report, contenders, name, error)
            continue
        samples[name] = documents
        report.ours[f"{name}_documents_a_round"] = documents
    return samples


def _measured(contenders: dict[str, Actor], samples: dict[str, int]) -> dict[str, list[dict[str, float]]]:
    """Each round is the sample, and its first half."""
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, name in alternated(list(samples)):
        whole = contenders[name].call("measure", timeout_s=CALL_S, documents=samples[name])
        half = contenders[name].call("measure", timeout_s=CALL_S, documents=samples[name] // 2)
        rate = whole["bytes"] / whole["seconds"]
        measured[name].append({"rate": rate, "half": half["seconds"] / whole["seconds"]})
        told(round=number + 1, contender=name, megabytes_a_second=rate / 1e6)
    return measured


def _judge(report: Report, measured: dict[str, list[dict[str, float]]]) -> None:
    rates = {name: [each["rate"] for each in rounds] for name, rounds in measured.items()}
    halves = {name: median(each["half"] for each in rounds) for name, rounds in measured.items()}
    report.ours |= {f"{name}_mb_per_second": median(rates[name]) / 1e6 for name in rates}
    report.ours |= {f"{name}_half": half for name, half in halves.items()}
    for name, half in halves.items():
        report.checks[f"{name}: half the sample takes half the time"] = HALF[0] <= half <= HALF[1]
    for peer in rates.keys() - {OURS}:
        ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[peer], strict=True)]
        report.ratios[peer] = Ratio.of(ratios, TARGETS[peer])


def _fail(report: Report, contenders: dict[str, Actor], name: str, error: ActorFailed) -> None:
    if name == OURS:
        raise error
    report.failed_peers[name] = str(error)
    del contenders[name]
