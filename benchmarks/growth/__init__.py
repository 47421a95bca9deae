"""How time and memory grow with what there is more of: the slope of their logarithms, 1 where twice as much takes twice as long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import log
from statistics import linear_regression, median

from benchmarks.actor import Actor
from benchmarks.growth.whole import Runs, bytes_a_record, whole_runs
from benchmarks.harness import Limit, Report, alternated, median_interval, told
from benchmarks.parse import NO_SERVERS

PEERS: dict[str, str] = {}
MAX_SLOPE = 1.1
RECORDS = (10_000, 31_623, 100_000, 316_228, 1_000_000)
LARGE = 100_000  # from here on there is a second slope: what a run of any size costs makes the first one smaller
COPIES = (12_500, 25_000, 50_000, 100_000)
MAX_BYTES_A_RECORD = 350
CALL_S = 300.0

Found = dict[int, list[dict[str, float]]]  # by the number of records, round after round


def run(peers: Sequence[str], records: Sequence[int] = RECORDS, copies: Sequence[int] = COPIES) -> Report:
    report = Report("growth")
    with _documents("mixed", max(records)) as documents:
        found = _searched(documents, records, report.rounds)
        a_record = documents.call("bytes_a_document", timeout_s=CALL_S, documents=max(records))
        report.commands["near_dedup"] = documents.command
    _tell(report, "near_dedup", found)
    _judge(report, "near_dedup", found)
    large = {count: found[count] for count in records if count >= LARGE}
    if len(large) > 1:
        _judge(report, f"near_dedup_from_{LARGE}", large)
    report.limits["near_dedup_bytes_a_record"] = Limit(a_record, MAX_BYTES_A_RECORD)
    with _documents("copies", max(copies)) as documents:
        found = _searched(documents, copies, report.rounds)
    _tell(report, "near_copies", found)
    _judge(report, "near_copies", found)
    compared = {count: rounds[0]["compared"] for count, rounds in found.items()}
    report.ours |= {f"comparisons_of_{count}_near_copies": number for count, number in compared.items()}
    report.limits["near_copies_comparisons_slope"] = Limit(slope(compared), MAX_SLOPE)
    report.checks["all near-copies but one are left out"] = all(
        one["left_out"] == count - 1 for count, rounds in found.items() for one in rounds
    )
    runs, report.commands["pipeline"] = whole_runs(records, report.rounds)
    judge_whole(report, runs)
    return report


def judge_whole(report: Report, runs: Runs) -> None:
    """By processor time, from an upload to what is stored, and by memory."""
    found = {count: [{"seconds": one["cpu_s"]} for one in rounds] for count, rounds in runs.items()}
    _tell(report, "pipeline", found)
    _judge(report, "pipeline", found)
    large = {count: found[count] for count in found if count >= LARGE}
    if len(large) > 1:
        _judge(report, f"pipeline_from_{LARGE}", large)
    report.ours |= {
        f"pipeline_peak_mib_of_{count}": max(one["anonymous_bytes"] for one in rounds) / 2**20
        for count, rounds in sorted(runs.items())
    }
    report.limits["pipeline_bytes_a_record"] = Limit(bytes_a_record(runs), MAX_BYTES_A_RECORD)
    report.checks["every run over the same records stores the same bytes"] = all(
        len({one["digest"] for one in rounds}) == 1 for rounds in runs.values()
    )
    shares = {count: 1 - rounds[0]["rows_kept"] / count for count, rounds in runs.items()}
    report.ours |= {f"pipeline_left_out_share_of_{count}": share for count, share in sorted(shares.items())}
    report.checks["of each size a tenth and more, and no more than a fifth, is left out"] = all(
        0.1 <= share <= 0.2 for share in shares.values()
    )


def slope(values: Mapping[int, float]) -> float:
    """Of the straight line through the logarithms of sizes and of what was measured there."""
    return linear_regression([log(size) for size in values], [log(value) for value in values.values()]).slope


def _documents(kind: str, most: int) -> Actor:
    return Actor("benchmarks.growth.near:Documents", kind, str(most), env=NO_SERVERS)


def _searched(documents: Actor, sizes: Sequence[int], rounds: int) -> Found:
    documents.call("search", timeout_s=CALL_S, documents=max(sizes))  # memory that was never used costs a fault a page
    found: Found = defaultdict(list)
    for number, count in alternated(sizes, rounds):
        found[count].append(documents.call("search", timeout_s=CALL_S, documents=count))
        told(round=number + 1, records=count, cpu_s=found[count][-1]["seconds"])
    return found


def _tell(report: Report, name: str, found: Found) -> None:
    seconds = {count: median(one["seconds"] for one in rounds) for count, rounds in found.items()}
    report.ours |= {f"{name}_cpu_s_of_{count}": value for count, value in sorted(seconds.items())}


def _judge(report: Report, name: str, found: Found) -> None:
    """By the upper end of the interval of the rounds' slopes."""
    rounds = range(report.rounds)
    slopes = [slope({count: of[number]["seconds"] for count, of in found.items()}) for number in rounds]
    report.ours[f"{name}_slope_median"] = median(slopes)
    report.limits[f"{name}_slope"] = Limit(median_interval(slopes)[1], MAX_SLOPE)
