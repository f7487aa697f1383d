"""The measured part of ``docs/results.md``: tables of what the cells say, and of nothing else."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cells import Cell, difference, merchants_ahead, read_cell, worst_decile_difference
from benchmarks.rows import FEDERATIONS, PRIVATE, TRUSTS, cells_of, default_rows, label_of, words_of
from fedrec.errors import RunError
from fedrec.evaluation.protocol import COLD

MARKS = ("<!-- measured: `make results` writes from here -->", "<!-- measured: to here -->")
TITLES = {
    "online_retail": "Online Retail",
    "next_basket": "Online Retail, next baskets",
    "ml1m": "MovieLens-1M",
    "beauty": "Amazon Beauty 2014",
    "games": "Amazon Games 2018, 50,000 people",
    "office": "Amazon Office 2018, a merchant a brand",
}
COLUMNS = {
    "NDCG@10": "ndcg@10",
    "by merchant": "merchant_ndcg@10",
    "worst decile": "worst_decile_ndcg@10",
    "HR@10": "hr@10",
}
COLD_COLUMN = {"cold HR@10": COLD}
BASKET_COLUMNS = {"Recall@20": "recall@20", "NDCG@20": "ndcg@20"}
MASKED = {
    "none": "nothing is masked",
    "last": "the item just bought is masked",
    "history": "a person's whole history is masked",
}
HELD_OUT = {"leave-last-out": "the last item of each person is held out", "next-basket": "the next basket is held out"}

Seeds = dict[int, dict[str, Cell]]  # seed -> name of a cell -> the cell; what was not measured is not there


def read_seeds(folder: Path, name: str, rows: Sequence[str], seeds: Sequence[int]) -> Seeds:
    """Read the cells of one data set (or of one size of the scaling study).

    Raises:
        RunError: a cell is damaged, or two of a seed are not of the same people.
    """
    found: Seeds = {}
    for seed in seeds:
        cells = {
            cell: read_cell(folder / name / f"seed-{seed}" / f"{cell}.json") for row in rows for cell in cells_of(row)
        }
        found[seed] = {cell: value for cell, value in cells.items() if value is not None}
        if len({value.question for value in found[seed].values() if value.refused is None}) > 1:
            raise RunError(f"{folder / name / f'seed-{seed}'}: cells of different people; remove them to measure again")
    return found


def set_section(data_set: str, found: Seeds) -> str:
    """Heading, what was asked, every ranker, what federating adds, what is promised."""
    if not any(cell.question for cells in found.values() for cell in cells.values()):
        return f"## {TITLES[data_set]}\n\nNot measured yet."
    rows = default_rows(data_set)
    is_cold = any(COLD in cell.means for cells in found.values() for cell in cells.values())
    columns = COLUMNS | (BASKET_COLUMNS if data_set == "next_basket" else {}) | (COLD_COLUMN if is_cold else {})
    parts = [
        f"## {TITLES[data_set]}",
        _asked(found),
        _rankers([cells_of(row)[-1] for row in rows], columns, found),
        _gains([row for row in rows if row in FEDERATIONS], found),
        _promises(found),
    ]
    return "\n\n".join(part for part in parts if part)


def scale_section(sizes: dict[tuple[int, int], Seeds]) -> str:
    """Merchants by people at each: what each merchant has alone, and what federating adds under two trust models."""
    federations = ("local-8", "distributed-8")
    lines = [
        "## How many merchants, and how large",
        "",
        "Online Retail. The gain is of the federated ranker over each merchant alone, NDCG@10 paired over people, "
        "seed by seed (± one standard error). People differ from row to row, so compare gains and not levels.",
        "",
        _line(["merchants", "people at each", "base", "alone", *(f"gain, {words_of(name)}" for name in federations)]),
        _line(["---"] * 6),
    ]
    for (merchants, people), found in sizes.items():
        gains = [_each(found, "local_only", f"federated-{name}", difference) for name in federations]
        levels = [_spread(found, row, "ndcg@10") for row in ("base", "local_only")]
        lines.append(_line([str(merchants), str(people), *levels, *gains]))
    lines += ["", *_missing([f"federated-{name}" for name in federations], sizes)]
    return "\n".join(lines).strip()


def _asked(found: Seeds) -> str:
    """Who was asked what, in numbers of the first seed that was measured."""
    asked = next(cell.question for cells in found.values() for cell in cells.values() if cell.question)
    seeds = [str(seed) for seed, cells in found.items() if cells]
    of = f"mean ± standard deviation over seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    return (
        f"{asked.people:,} people with a target at {asked.merchants} merchants, {asked.items:,} items, full ranking; "
        f"{HELD_OUT[asked.split]}; {MASKED[asked.masking]}. Figures: {of}.{_cold(found)}"
    )


def _cold(found: Seeds) -> str:
    """How many people the column of cold items speaks of, seed by seed; nothing where there are none."""
    people = [max((cell.cold_people for cell in cells.values()), default=0) for cells in found.values() if cells]
    told = ", ".join(f"{number:,}" for number in people)
    return f" Cold: asked for an item in nobody's training events, {told} people." if any(people) else ""


def _rankers(names: Sequence[str], columns: dict[str, str], found: Seeds) -> str:
    lines = [_line(["ranker", *columns]), _line(["---"] * (1 + len(columns)))]
    for name in names:
        lines.append(_line([label_of(name), *(_spread(found, name, column) for column in columns.values())]))
    seconds = {
        name: [cells[name].seconds for cells in found.values() if name in cells and cells[name].refused is None]
        for name in names
    }
    told = ", ".join(f"{label_of(name)} {statistics.median(each):.0f}" for name, each in seconds.items() if each)
    return "\n".join([*lines, "", *_missing(names, {"": found}), f"- Seconds, median over seeds: {told}."])


def _gains(federations: Sequence[str], found: Seeds) -> str:
    """What the shared ranker has over the base, and the deployed one over each merchant alone."""
    if not any(f"federated-{name}" in cells for cells in found.values() for name in federations):
        return ""
    heading = [
        "federation",
        "shared over base",
        "federated over alone",
        "in the worst decile",
        "merchants ahead, behind",
    ]
    lines = [
        "What federating adds, NDCG@10: the shared ranker with every local part off; its gain over the base; the gain "
        "of what a merchant deploys over each merchant alone, on average and in the worst decile; how many merchants "
        "are ahead and behind. Gains are paired, seed by seed (± one standard error: over people; over merchants, by "
        "bootstrap, in the worst decile).",
        "",
        _line(heading),
        _line(["---"] * len(heading)),
    ]
    for name in federations:
        ahead = [
            "{}, {}".format(*merchants_ahead(alone, together))
            for alone, together in _pairs(found, "local_only", f"federated-{name}")
        ]
        gains = (
            _each(found, "base", f"shared-{name}", difference),
            _each(found, "local_only", f"federated-{name}", difference),
            _each(found, "local_only", f"federated-{name}", worst_decile_difference),
        )
        level = _spread(found, f"shared-{name}", "ndcg@10")
        lines.append(_line([words_of(name), level, *gains, "; ".join(ahead) or "-"]))
    return "\n".join([*lines, "", *_rounds(federations, found)]).strip()


def _rounds(federations: Sequence[str], found: Seeds) -> list[str]:
    """What was published, where that is not the last round of a run without a void one."""
    odd = []
    for name in federations:
        runs = [cells[f"federated-{name}"].federated for cells in found.values() if f"federated-{name}" in cells]
        told = [
            f"round {run.published_round} of {run.rounds}" + (f", {run.void_rounds} void" if run.void_rounds else "")
            for run in runs
            if run is not None and (run.published_round < run.rounds or run.void_rounds)
        ]
        if told:
            odd.append(f"{words_of(name)}: {', '.join(told)}")
    return [f"- Published before the last round, or with void rounds: {'; '.join(odd)}."] if odd else []


def _promises(found: Seeds) -> str:
    """The statement of each trust model at its largest epsilon that was measured."""
    lines = []
    for trust in TRUSTS:
        told = [
            (name, run.statement)
            for name in PRIVATE
            if name.startswith(f"{trust}-")
            for cells in found.values()
            if f"federated-{name}" in cells and (run := cells[f"federated-{name}"].federated) is not None
        ]
        if told:
            lines.append(f"- {words_of(told[0][0])}: {told[0][1]}")
    return "\n".join(["What is promised; the other rows differ in epsilon alone:", "", *lines]) if lines else ""


def _missing(names: Sequence[str], groups: dict[str, Seeds] | dict[tuple[int, int], Seeds]) -> list[str]:
    """Why a figure is missing, and of which seeds one is where not all were measured."""
    lines, absent = [], []
    for name in names:
        for group, found in groups.items():
            where = f" at {group[0]} x {group[1]}" if isinstance(group, tuple) else ""
            measured = [seed for seed, cells in found.items() if name in cells and cells[name].refused is None]
            refused = {cells[name].refused for cells in found.values() if name in cells and cells[name].refused}
            begun = [seed for seed, cells in found.items() if cells]
            lines += [f"- Not measured: {label_of(name)}{where}: {reason}." for reason in sorted(refused)]
            if not measured and not refused:
                absent.append(label_of(name) + where)
            elif not refused and len(measured) < len(begun):
                lines.append(f"- Of seed {', '.join(map(str, measured))} alone: {label_of(name)}{where}.")
    return [*lines, *([f"- Not run: {'; '.join(absent)}."] if absent else [])]


def _pairs(found: Seeds, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """Both cells of each seed that has both."""
    both = [(cells[first], cells[second]) for cells in found.values() if {first, second} <= cells.keys()]
    return [pair for pair in both if pair[0].refused is None and pair[1].refused is None]


def _each(found: Seeds, first: str, second: str, compare: Callable[[Cell, Cell], tuple[float, float]]) -> str:
    """A difference seed by seed."""
    differences = [compare(*pair) for pair in _pairs(found, first, second)]
    return ", ".join(f"{value:+.4f} ± {error:.4f}" for value, error in differences) or "-"


def _spread(found: Seeds, name: str, column: str) -> str:
    """``0.1722 ± 0.0012`` over the seeds; no deviation of one; a dash of none."""
    values = [cells[name].means[column] for cells in found.values() if name in cells and column in cells[name].means]
    if not values:
        return "-"
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
