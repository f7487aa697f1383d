"""Where runs go when nobody says where, and which of them ended last."""

from pathlib import Path

from fedrec.errors import RunError

RUNS = Path("runs")  # below the folder that a command is called in


def newest_run(runs: Path = RUNS) -> Path:
    """The run in a folder of runs that published its adapter last; of equals the last by name.

    Raises:
        RunError: there is none; says how to make one, or how to finish one.
    """
    from fedrec.runfolder import ADAPTER  # numpy comes with it: not for --help

    started = [path for path in runs.glob("*") if (path / "config.toml").is_file()]
    finished = [path for path in started if (path / ADAPTER).is_file()]
    if not finished and started:
        raise RunError(f"{runs}: no run has ended; go on with fedrec simulate --out {max(started)} --resume")
    if not finished:
        raise RunError(f"{runs}: no run here; make one with make simulate or fedrec simulate, or name a run folder")
    return max(finished, key=lambda path: ((path / ADAPTER).stat().st_mtime_ns, path.name))
