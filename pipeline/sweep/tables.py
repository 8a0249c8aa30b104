"""results.csv, summary.csv, summary.md, summary.tex and summary.png of a sweep."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from pipeline.certify.block_store import write_atomically
from pipeline.certify.reporting.latex import epsilon_tex, escaped
from pipeline.sweep.grid import short_names
from pipeline.sweep.plan import Sweep
from pipeline.sweep.plot import draw_plot
from pipeline.sweep.results import (
    CLEAN,
    LIPSCHITZ,
    LIPSCHITZ_UNSOUND,
    Result,
    Statistic,
    Summary,
    collect,
    epsilons_of,
    summarise,
    vra,
    vra_unsound,
)

Columns = Mapping[str, tuple[str, Callable[[Statistic | None], str]]]
"""Title: name of a statistic, and how it is written."""


def write_results(sweep: Sweep) -> None:
    """Write results.csv from the certificates that are there.

    Raises:
        ValueError: as `collect`.
        OSError: the directory cannot be written.
    """
    write_atomically(sweep.directory / "results.csv", results_csv(sweep, collect(sweep)))


def write_summary(sweep: Sweep) -> str:
    """Write mean and sd as summary.csv, .md and .tex, and where one number is swept .png.

    Returns:
        summary.md, for the terminal.

    Raises:
        ValueError: as `collect` and `summarise`.
        OSError: the directory cannot be written.
    """
    results = collect(sweep)
    summaries, epsilons = summarise(sweep, results), epsilons_of(results)
    text = markdown(sweep, summaries, epsilons)
    write_atomically(sweep.directory / "summary.csv", summary_csv(sweep, summaries))
    write_atomically(sweep.directory / "summary.md", text)
    write_atomically(sweep.directory / "summary.tex", latex(sweep, summaries, epsilons))
    plot = draw_plot(sweep, summaries, epsilons)
    if plot is not None:
        write_atomically(sweep.directory / "summary.png", plot)
    return text


def results_csv(sweep: Sweep, results: Sequence[Result]) -> str:
    """One row a run; a run without certificate has the state `missing` and no numbers."""
    names = list(dict.fromkeys(name for result in results for name in result.numbers))
    rows = [
        [
            result.run.name,
            *(value for _, value in result.run.point.settings),
            result.run.seed,
            "finished" if result.certificate else "missing",
            *(_exact(result.numbers.get(name)) for name in names),
        ]
        for result in results
    ]
    return _csv([["run", *sweep.keys, "seed", "state", *names], *rows])


def summary_csv(sweep: Sweep, summaries: Sequence[Summary]) -> str:
    """One row a point: seeds in the mean, seeds missing, mean and sd of every number."""
    names = list(dict.fromkeys(name for summary in summaries for name in summary.statistics))
    rows: list[list[object]] = [
        [*sweep.keys, "n", "missing", *(f"{n}_{what}" for n in names for what in ("mean", "sd"))]
    ]
    for summary in summaries:
        row: list[object] = [value for _, value in summary.point.settings]
        row += [summary.finished, len(summary.missing)]
        for name in names:
            found = summary.statistics.get(name)
            row += [_exact(found.mean), _exact(found.sd)] if found else ["", ""]
        rows.append(row)
    return _csv(rows)


def markdown(sweep: Sweep, summaries: Sequence[Summary], epsilons: Sequence[str]) -> str:
    """What is proved, what the usual recipe says, and what is missing."""
    proved = {"clean %": (CLEAN, percent)}
    proved |= {f"VRA {epsilon} %": (vra(epsilon), percent) for epsilon in epsilons}
    proved |= {"Lipschitz bound": (LIPSCHITZ, plain)}
    usual = {f"VRA {epsilon} %": (vra_unsound(epsilon), percent) for epsilon in epsilons}
    usual |= {"Lipschitz estimate": (LIPSCHITZ_UNSOUND, plain)}
    lines = [
        f"# Sweep {sweep.name}",
        "",
        "Mean ± sample standard deviation (n − 1) over n seeds; proved, on the certified images.",
        "",
        *_table(sweep, summaries, proved),
        "",
        "By the usual recipe (power iteration, float32), which proves nothing:",
        "",
        *_table(sweep, summaries, usual),
    ]
    missing = [name for summary in summaries for name in summary.missing]
    if missing:
        lines += ["", f"Missing, and in no mean ({len(missing)}): {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _table(sweep: Sweep, summaries: Sequence[Summary], columns: Columns) -> list[str]:
    """A line a point."""
    names = short_names(sweep.keys)
    rows = [[*(names[key] for key in sweep.keys), "n", *columns]]
    for summary in summaries:
        settings = [value for _, value in summary.point.settings]
        cells = [write(summary.statistics.get(name)) for name, write in columns.values()]
        rows.append([*settings, str(summary.finished), *cells])
    return aligned(rows, len(sweep.keys))


def latex(sweep: Sweep, summaries: Sequence[Summary], epsilons: Sequence[str]) -> str:
    """A booktabs tabular of clean accuracy and proved VRA in percent."""
    names = short_names(sweep.keys)
    head = [escaped(names[key]) for key in sweep.keys] + ["$n$", r"Clean (\%)"]
    head += [rf"VRA at {epsilon_tex(epsilon)} (\%)" for epsilon in epsilons]
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(sweep.keys)}{'r' * (len(epsilons) + 2)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
    ]
    for summary in summaries:
        cells = [escaped(value) for _, value in summary.point.settings] + [str(summary.finished)]
        for name in (CLEAN, *map(vra, epsilons)):
            cells.append(f"${percent(summary.statistics.get(name))}$".replace("±", r"\pm"))
        lines.append(" & ".join(cells) + r" \\")
    missing = [name for summary in summaries for name in summary.missing]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% missing, and in no mean: {name}" for name in missing]
    return "\n".join(lines).replace("$–$", "--") + "\n"


def percent(found: Statistic | None) -> str:
    """`95.37 ± 0.32` of shares, `95.37` of a single seed, `–` of none."""
    if found is None:
        return "–"
    spread = "" if found.sd is None else f" ± {100 * found.sd:.2f}"
    return f"{100 * found.mean:.2f}{spread}"


def plain(found: Statistic | None) -> str:
    """The same of a number that is no share."""
    if found is None:
        return "–"
    return f"{found.mean:#.4g}" + ("" if found.sd is None else f" ± {found.sd:.2g}")


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A Markdown table whose columns also stand one below the other; the first `left` are text."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    head, *body = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return [line(head), line(rule), *map(line, body)]


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
