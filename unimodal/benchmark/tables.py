"""Tables of results, for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]

HEADER = ("case", "model", "dtype", "tokens", "forwards", "tokens/s", "prefill s", "denoise s", "decode s", "total s")


def terminal_lines(results: Results) -> list[str]:
    """Everything, in columns."""
    blocks = [[_context(results)], _columns([HEADER, *_case_rows(results)])]
    if results["comparisons"]:
        blocks.append(_columns([COMPARISON_HEADER, *_comparison_rows(results)]))
    blocks.append([f"skipped {entry['case']}: {entry['model']} {entry['why']}" for entry in results["skipped"]])
    return [line for block in blocks if block for line in [*block, ""]][:-1]


def markdown(results: Results) -> str:
    """Both tables as Markdown, with the machine in a line below."""
    blocks = [_markdown([HEADER, *_case_rows(results)])]
    if results["comparisons"]:
        blocks.append(_markdown([COMPARISON_HEADER, *_comparison_rows(results)]))
    blocks.append(_context(results) + ".")
    return "\n\n".join(blocks)


def difference_lines(before: Results, after: Results) -> list[str]:
    """The cases that two results share, and how much faster the second is."""
    old = {_key(entry): entry for entry in before["cases"]}
    rows = [("case", "model", "dtype", "before s", "after s", "speedup", "same tokens")]
    for entry in after["cases"]:
        other = old.get(_key(entry))
        if other is None:
            continue
        first, second = other["seconds"]["total"], entry["seconds"]["total"]
        same = "-" if entry["tokens_sha256"] is None else _yes(entry["tokens_sha256"] == other["tokens_sha256"])
        rows.append((*_key(entry), _number(first), _number(second), _times(first / second), same))
    if len(rows) == 1:
        raise ValueError("compare: the two files have no case in common")
    return [f"before: {_context(before)}", f"after:  {_context(after)}", "", *_columns(rows)]


def _key(entry: Results) -> tuple[str, str, str]:
    return entry["case"], entry["model"], entry["dtype"]


def _case_rows(results: Results) -> list[Sequence[str]]:
    rows = []
    for entry in results["cases"]:
        seconds = entry["seconds"]
        rows.append(
            (
                *_key(entry),
                str(entry["tokens"] or "-"),
                str(entry["forwards"] or "-"),
                _number(entry["tokens_per_second"]),
                *(_number(seconds[stage]) for stage in ("prefill", "denoise", "decode", "total")),
            )
        )
    return rows


COMPARISON_HEADER = ("comparison", "model", "dtype", "measured", "target", "same tokens")


def _comparison_rows(results: Results) -> list[Sequence[str]]:
    rows = []
    for entry in results["comparisons"]:
        limit = entry["target"]
        target = "-" if limit is None else f"{'≤' if entry['at_most'] else '≥'} {_times(limit)}"
        agreement = entry.get("token_agreement")
        same = "-" if agreement is None else "yes" if agreement == 1 else f"{agreement:.1%}"
        rows.append((entry["name"], entry["model"], entry["dtype"], _times(entry["value"]), target, same))
    return rows


def _context(results: Results) -> str:
    machine, settings, versions = results["machine"], results["settings"], results["versions"]
    threads = "thread" if settings["threads"] == 1 else "threads"
    place = machine.get("gpu") or f"{machine['processor']}, {settings['threads']} {threads}"
    return (
        f"{place} (load {machine['load']}), torch {versions['torch']}, diffusers {versions['diffusers']}, "
        f"seed {settings['seed']}, median of {settings['repeats']}"
    )


def _number(value: float | None) -> str:
    return "-" if not value else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _times(value: float) -> str:
    return f"{value:.3g} ×"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    header, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, f"|{'---|' * len(rows[0])}", *rest])
