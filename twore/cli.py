"""The `twore` command: run a study file, look at a run folder, join folders, redraw a report.

twore run STUDY.yaml --out DIR        run (or resume) a study written by hand or by a recipe
twore status DIR                      what is done, runs, failed and is missing, and the time left
twore merge DIR... --out OUT          join the folders of shards that ran without a shared disk
twore report DIR                      tables -> figures and report.html, again
twore score DIR...                    which rule finds the epoch to prune at: every predictor by its regret
twore short DIR --out SHORT ...       a short pilot beside a study (twore.commands.short)
twore advise DIR                      which of your checkpoints to prune (twore.commands.advise)
twore prune MODEL --ratio R           a model of your own with zeros in place (twore.commands.prune)
twore export MODEL                    plain, compact or ONNX files, and what sparsity brings (twore.commands.export)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import twore
from twore.commands import advise as advise_command
from twore.commands import export as export_command
from twore.commands import prune as prune_command
from twore.commands import short as short_command


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, fields = advise_command.split_fields(words) if words[:1] == ["advise"] else (words, [])
    options = _parser().parse_args(words, argparse.Namespace(fields=fields))
    return options.do(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="twore", description="When should I stop training before I prune?")
    parser.add_argument("--version", action="version", version=f"twore {twore.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run or resume a study file", description=_run.__doc__)
    run.add_argument("study", type=Path, help="a study.yaml")
    run.add_argument("--out", type=Path, help="folder of the results (default: the study file's own folder)")
    run.add_argument("--data", help="folder with the data sets (default: $TWORE_DATA)")
    run.add_argument("--workers", type=int, help="worker processes (default: 1; with ray as many as there is room for)")
    run.add_argument("--executor", default="process", help="where jobs run: process, serial or ray")
    run.add_argument("--slots", type=int, metavar="N", help="workers that may share one GPU (default with ray: 1)")
    run.add_argument("--ray-address", metavar="ADDRESS", help="a running Ray cluster, host:port or auto")
    run.add_argument("--shard", metavar="I/N", help="do the I-th of N shares only (1/N to N/N)")
    run.add_argument("--time-limit", type=float, metavar="SECONDS", help="seconds that one job may take")
    run.add_argument("--only-failed", action="store_true", help="try again the jobs that failed, and nothing else")
    run.add_argument("--dry-run", action="store_true", help="print the plan with hours and disk, and stop")
    run.add_argument("--calibrate", action="store_true", help="measure speed here for the plan's hours")
    run.set_defaults(do=_run)

    status = commands.add_parser("status", help="what is done of a study", description=_status.__doc__)
    status.add_argument("folder", type=Path, help="a run folder (--out of a run)")
    status.add_argument("--json", action="store_true", help="one JSON object (its fields: twore.study.status)")
    status.add_argument("--watch", type=float, metavar="SECONDS", help="again every so many seconds, until finished")
    status.set_defaults(do=_status)

    merge = commands.add_parser("merge", help="join run folders of one study", description=_merge.__doc__)
    merge.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="run folders; they are only read")
    merge.add_argument("--out", type=Path, required=True, help="folder of the joined study")
    merge.set_defaults(do=_merge)

    report = commands.add_parser("report", help="draw the report of a run folder", description=_report.__doc__)
    report.add_argument("folder", type=Path, help="a run folder")
    report.set_defaults(do=_report)

    score = commands.add_parser("score", help="judge predictors of the epoch by regret", description=_score.__doc__)
    score.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="run folders; all their settings count")
    score.add_argument("--out", type=Path, help="folder of scoreboard.csv (default: DIR, or ./scoreboard for several)")
    score.add_argument("--dense", default="mean", choices=("mean", "each"), help="dense seeds: averaged, or one by one")
    score.add_argument("--pilot-from", type=Path, nargs="+", default=[], metavar="SHORT", help="run folders of the same"
                       " dense runs with a shorter fine-tuning: what would it have chosen?")  # fmt: skip
    score.set_defaults(do=_score)

    for command in (short_command, advise_command, prune_command, export_command):
        command.add(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    """Run a study file, or resume it. The same command goes on where a run was stopped."""
    sys.path.insert(0, "")  # a study file may name a task of the current folder, module:Class
    from twore.data import DataError, data_folder  # torch is imported only by the commands that need it
    from twore.recipes.command import check_run_options, estimate_in_words, execute, parse_shard, plan_in_words
    from twore.study.config import ConfigError, load_study

    try:
        check_run_options(options.workers, options.executor, options.time_limit, options.slots)
        workers = options.workers if options.executor == "ray" else options.workers or 1
        study, shard = load_study(options.study), parse_shard(options.shard)
        plans = options.dry_run or options.calibrate
        folder = data_folder(options.data) if options.calibrate or not options.dry_run else None
        if plans:
            words = estimate_in_words(
                study, workers=workers or 1, shard=shard, calibrate=options.calibrate, data=folder
            )
            print(f"{plan_in_words(study.name, study)}\n{words}", file=sys.stderr, flush=True)
        if options.dry_run:
            return 0
        return execute(
            study, options.out or options.study.resolve().parent, workers=workers, executor=options.executor,
            slots=options.slots, ray_address=options.ray_address, data=folder, shard=shard,
            time_limit=options.time_limit, only_failed=options.only_failed,
        )  # fmt: skip
    except (ConfigError, DataError) as error:
        return _problem(error)


def _status(options: argparse.Namespace) -> int:
    """Say what is done of a study, what runs, what failed, and how long the rest will take. Reads the folder only."""
    from twore.study.config import ConfigError
    from twore.study.status import in_words, read_status

    try:
        if options.watch is not None and not options.watch > 0:
            raise ConfigError(f"--watch is a number of seconds above 0: got {options.watch:g}")
        while True:
            status = read_status(options.folder)
            print(json.dumps(status.as_json(), allow_nan=False) if options.json else in_words(status), flush=True)
            if options.watch is None or status.state == "finished":
                return 0
            time.sleep(options.watch)
    except (ConfigError, OSError) as error:
        return _problem(error)
    except KeyboardInterrupt:
        return 130


def _merge(options: argparse.Namespace) -> int:
    """Join the folders of shards that ran without a shared disk, then write the tables and the report."""
    from twore.report import write_report
    from twore.study.merge import merge

    try:
        merged = merge(options.folders, options.out)
        missing = f", {merged.missing:,} missing: `twore run` in that folder computes them" if merged.missing else ""
        print(f"{len(options.folders)} folders joined in {options.out}: {merged.cells:,} cells{missing}")
        if merged.broken:
            print(f"left out {len(merged.broken)} damaged files, such as {merged.broken[0]}", file=sys.stderr)
        if merged.cells:
            print(f"report: {write_report(options.out)}")
    except (ValueError, OSError) as error:  # ConfigError, or tables that cannot be drawn
        return _problem(error)
    return 0


def _report(options: argparse.Namespace) -> int:
    """Draw figures and report.html of a run folder from its tables."""
    from twore.report import summary, write_report

    try:
        page = write_report(options.folder)
        print(summary(options.folder))
    except (OSError, ValueError) as error:
        return _problem(error)
    print(f"report: {page}")
    return 0


def _score(options: argparse.Namespace) -> int:
    """Judge every predictor of the stopping epoch by regret: scoreboard.csv, a row a setting, and a chart."""
    from twore.report.scoring import in_words, write_scoreboard

    out = options.out or (options.folders[0] if len(options.folders) == 1 else Path("scoreboard"))
    try:
        scores = write_scoreboard(options.folders, out, dense=options.dense, pilot_from=options.pilot_from)
        print(in_words(scores))
    except (OSError, ValueError) as error:
        return _problem(error)
    print(f"written: {out / 'scoreboard.csv'}")
    return 0


def _problem(error: Exception) -> int:
    print(f"twore: {str(error).splitlines()[0]}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
