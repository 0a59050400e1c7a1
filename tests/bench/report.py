"""What was measured, as a table, as JSON and as a plot."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.growth import Cost
from bench.measure import Ratio, Round, Row, mean_rate, percentile


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """Print what druncd and its baselines took."""
    table = Table(title="druncd and its baselines, median and 99th percentile")
    for name in ("what", "druncd", "99 %", "baseline", "99 %"):
        table.add_column(
            name, justify="left" if name == "what" else "right", no_wrap=name != "what"
        )
    for name in ("compared with", "ratio", "target", "runs"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            row.what,
            *_sides(row.ours, row),
            *(_sides(row.bare, row) if row.bare else ("", "")),
            row.baseline,
            f"{row.result:.2f}" + ("" if row.ratio is Ratio.NONE else f" {row.ratio.value}"),
            f"{row.target} {'met' if row.holds else 'MISSED'}",
            f"{len(row.ours)} x {len(row.ours[0].values)}",
        )
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.what}: {row.note}", style="dim")


def print_processor(console: Console, rows: Sequence[Row]) -> None:
    """Print who spent the time."""
    names = list(
        dict.fromkeys(name for row in rows for name in _spent(row.ours) | _spent(row.bare))
    )
    table = Table(title="Milliseconds of processor time for each boot, ps, process or line")
    table.add_column("what")
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        for rounds, what in ((row.ours, row.what), (row.bare, f"  {row.baseline}")):
            if spent := _spent(rounds):
                table.add_row(
                    what, *(f"{spent[name]:.3f}" if name in spent else "" for name in names)
                )
    console.print(table)


def print_growth(console: Console, costs: Sequence[Cost]) -> None:
    """Print how costs grow with the number of processes."""
    table = Table(title="Milliseconds, by the number of processes")
    for field in dataclasses.fields(Cost):
        table.add_column(field.name, justify="right")
    for cost in costs:
        values = dataclasses.astuple(cost)
        table.add_row(f"{values[0]:,}", *(f"{value:,.2f}" for value in values[1:]))
    console.print(table)


def as_json(rows: Sequence[Row], costs: Sequence[Cost]) -> dict[str, Any]:
    """All that was measured."""
    return {
        "rows": [
            {
                "name": row.name,
                "what": row.what,
                "unit": row.unit,
                "druncd": _numbers(row.ours),
                "baseline": {"what": row.baseline, **_numbers(row.bare)} if row.bare else None,
                "ratio": row.result if row.ratio is not Ratio.NONE else None,
                "ratio_of": row.ratio.value,
                "target": str(row.target),
                "met": row.holds,
                "note": row.note,
            }
            for row in rows
        ],
        "growth": [dataclasses.asdict(cost) for cost in costs],
    }


def plot(costs: Sequence[Cost], file: Path) -> None:
    """Draw how costs grow with the number of processes."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    labels = {
        "boot": "one more boot",
        "ps": "ps of all",
        "kill": "kill of all",
        "flush": "flush of all",
        "restart": "restart of druncd, until ps is complete",
    }
    counts = [cost.processes for cost in costs]
    for name, label in labels.items():
        axes.plot(counts, [getattr(cost, name) for cost in costs], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="processes", ylabel="milliseconds")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def _sides(rounds: Sequence[Round], row: Row) -> tuple[str, str]:
    middle, worst = percentile(rounds, 0.5), percentile(rounds, 0.99)
    rate = f" ({mean_rate(rounds) or 0:,.0f}/s)" if row.ratio is Ratio.RATE else ""
    return f"{_rounded(middle)} {row.unit}{rate}", f"{_rounded(worst)} {row.unit}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spent(rounds: Sequence[Round]) -> dict[str, float]:
    names = {name: None for each in rounds for name in each.spent}
    return {name: sum(each.spent[name] for each in rounds) / len(rounds) for name in names}


def _numbers(rounds: Sequence[Round]) -> dict[str, Any]:
    return {
        "median": percentile(rounds, 0.5),
        "p99": percentile(rounds, 0.99),
        "rate": mean_rate(rounds),
        "processor_ms": _spent(rounds),
        "runs": len(rounds),
        "values": sum(len(each.values) for each in rounds),
    }
