"""The `twore` command: run a study file, redraw a report.

twore run STUDY.yaml --out DIR        run (or resume) a study written by hand or by a recipe
twore report DIR                      tables -> figures and report.html, again
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import twore


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    options = _parser().parse_args(arguments)
    return options.do(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="twore", description="When should I stop training before I prune?")
    parser.add_argument("--version", action="version", version=f"twore {twore.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run or resume a study file", description="Run a study, or resume it.")
    run.add_argument("study", type=Path, help="a study.yaml")
    run.add_argument("--out", type=Path, help="folder of the results (default: the study file's own folder)")
    run.add_argument("--data", help="folder with the data sets (default: $TWORE_DATA)")
    run.add_argument("--workers", type=int, default=1, help="worker processes on this machine")
    run.add_argument("--executor", default="process", help="process or serial")
    run.set_defaults(do=_run)
    report = commands.add_parser("report", help="draw the report of a run folder", description=_report.__doc__)
    report.add_argument("folder", type=Path)
    report.set_defaults(do=_report)
    return parser


def _run(options: argparse.Namespace) -> int:
    from twore.data import DataError, data_folder  # torch is imported only by the commands that need it
    from twore.recipes.command import execute
    from twore.study.config import ConfigError, load_study

    try:
        study = load_study(options.study)
        out = options.out or options.study.resolve().parent
        folder = data_folder(options.data)
        return execute(study, out, workers=options.workers, executor=options.executor, data=folder)
    except (ConfigError, DataError) as error:
        return _problem(error)


def _report(options: argparse.Namespace) -> int:
    """Draw figures and report.html of a run folder from its tables."""
    from twore.report import summary, write_report

    try:
        page = write_report(options.folder)
        print(summary(options.folder))
    except (FileNotFoundError, ValueError) as error:
        return _problem(error)
    print(f"report: {page}")
    return 0


def _problem(error: Exception) -> int:
    print(f"twore: {str(error).splitlines()[0]}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
