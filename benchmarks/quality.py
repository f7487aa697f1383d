"""What federation buys and what privacy costs, over seeds: the tables of ``docs/results.md``.

    python benchmarks/quality.py runs/quality --seeds 3 --settings eps8 eps3 eps1 next_basket no_noise_large

Each run is a plain ``fedrec simulate`` in a folder of its own; finished ones are read, not repeated.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

SETTINGS = {
    "eps8": ["--epsilon", "8", "--compare"],
    "eps3": ["--epsilon", "3"],
    "eps1": ["--epsilon", "1"],
    "next_basket": ["--epsilon", "8", "--split", "next-basket", "--config", "benchmarks/next_basket.toml"],
    "no_noise_large": ["--no-dp", "--config", "benchmarks/no_noise_large.toml"],
}
COLUMNS = ("ndcg@10", "hr@10", "mrr@10", "recall@20", "coverage@10", "merchant_ndcg@10", "worst_decile_ndcg@10")


def main() -> None:
    """Run what is missing and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments = parser.parse_args()
    for setting in arguments.settings:
        runs = [run(arguments.folder, setting, seed) for seed in range(arguments.seeds)]
        print(table(setting, runs), flush=True)


def run(folder: Path, setting: str, seed: int) -> Path:
    """Simulate one setting and seed unless it is there already; return its run folder."""
    out = folder / f"{setting}-seed{seed}"
    if not (out / "report.json").exists():
        resume = ["--resume"] if (out / "config.toml").exists() else SETTINGS[setting] + ["--seed", str(seed)]
        code = "from fedrec.cli import main; main()"
        subprocess.run(
            [sys.executable, "-c", code, "simulate", "--out", str(out), *resume], check=True, stdout=sys.stderr
        )
    return out


def table(setting: str, runs: list[Path]) -> str:
    """Mean ± standard deviation over the runs, a row a ranker, then the paired differences run by run."""
    summaries = [json.loads((run / "summary.json").read_text(encoding="utf-8")) for run in runs]
    contexts = [json.loads((run / "report.json").read_text(encoding="utf-8"))["context"] for run in runs]
    lines = [f"### {setting}", "", "| row | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for row in summaries[0]["metrics"]:
        cells = [spread([summary["metrics"][row][column] for summary in summaries]) for column in COLUMNS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines.append("")
    for name in ("shared_vs_base", "federated_vs_local_only"):
        differences = [context[name] for context in contexts]
        told = ", ".join(f"{d['difference']:+.4f} ± {d['standard_error']:.4f}" for d in differences)
        lines.append(f"- {name}, NDCG@10 paired over people, seed by seed (± one standard error): {told}")
    published = ", ".join(str(context["published_round"]) for context in contexts)
    seconds = ", ".join(f"{summary['timing']['total_s']:.0f}" for summary in summaries)
    memory = max(summary["peak_rss_mb"] for summary in summaries)
    lines += [f"- published round: {published}; seconds: {seconds}; largest resident memory: {memory:.0f} MB", ""]
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """``.1722 ± .0012``."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
