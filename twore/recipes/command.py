"""The command line that all recipes share: preset, then --config, then flags; plan, run, report, a clear last line.

A recipe is a name, a task class and a table of presets; everything else is here.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from jsonargparse import ArgumentParser, Namespace

from twore.data import DataError, data_folder
from twore.study.config import ConfigError, add_study_arguments, flat_values, one_sentence, study_from
from twore.study.create import check_writable
from twore.study.executors import EXECUTORS, check_options
from twore.study.run import run_study, say
from twore.study.specs import Study
from twore.training import Training
from twore.training.numerics import resolve

MOST_WORKERS = 4  # by default; each holds its own copy of the data and of torch (about 0.5 GB)
T = TypeVar("T")
STUDY_PROBLEM, FAILED_JOBS, INTERRUPTED = 2, 1, 130  # exit statuses
WORKERS_HELP = "worker processes (default: one a core, at most 4; with ray as many as the cluster has room for)"
EXECUTOR_HELP = "where jobs run: processes here, serial (this process), or a ray cluster"
SLOTS_HELP = "workers that may share one GPU (default: any number here, 1 with ray)"
RAY_ADDRESS_HELP = "a running Ray cluster, host:port or auto (default: $RAY_ADDRESS, else one is started here)"
SHARD_HELP = "do the I-th of N shares only (1/N to N/N); with or without a shared disk"
TIME_LIMIT_HELP = "seconds that one job may take, a dense run or a group of cells; then it fails and the others go on"
ONLY_FAILED_HELP = "try again the jobs that failed, and nothing else"
DRY_RUN_HELP = "print the plan with hours and disk, and stop; needs no data"
CALIBRATE_HELP = "measure speed here (under a minute) for the plan's hours, instead of assuming it"


@dataclass(frozen=True)
class Recipe:
    """A named study with presets."""

    name: str
    task: type
    presets: Mapping[str, Callable[[], Study]]
    about: str
    finetune_settings: Mapping[str, Training]  # named fine-tune settings


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe from the command line; returns the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options, study = parse(recipe, argv)
        shard = parse_shard(options.shard)
        workers = None if options.executor == "ray" else default_workers()  # unless a number is given
        workers = options.workers or workers
        folder = data_folder(options.data) if options.calibrate or not options.dry_run else None
        out = Path(options.out or f"runs/{recipe.name}-{options.preset}")
        say(plan_in_words(f"{recipe.name}, preset {options.preset}", study))
        if options.dry_run or options.calibrate:
            say(estimate_in_words(study, workers=workers or 1, shard=shard, calibrate=options.calibrate, data=folder))
        if options.dry_run:
            return 0
        check_writable(out)
        return execute(
            study, out, workers=workers, executor=options.executor, slots=options.slots,
            ray_address=options.ray_address, data=folder, shard=shard, time_limit=options.time_limit,
            only_failed=options.only_failed, tensorboard=options.tensorboard,
        )  # fmt: skip
    except (ConfigError, DataError, argparse.ArgumentError) as error:
        words = one_sentence(error) if isinstance(error, argparse.ArgumentError) else str(error).splitlines()[0]
        say(f"{recipe.name}: {words}")
        return STUDY_PROBLEM


def execute(
    study: Study,
    out: Path,
    *,
    workers: int | None,
    executor: str,
    data: Path | None,
    slots: int | None = None,
    ray_address: str | None = None,
    shard: tuple[int, int] | None = None,
    time_limit: float | None = None,
    only_failed: bool = False,
    tensorboard: bool = False,
) -> int:
    """Run a study in `out`, write its report, and say what was found. Returns the exit status.

    All options as run_study has them.
    """
    from twore.report import summary, write_report, write_scoreboard  # matplotlib: only when there is something to draw

    check_run_options(workers, executor, time_limit, slots)
    _check_device(study)
    _show_log()
    try:
        results = run_study(
            study, out, workers=workers, executor=executor,
            slots=slots, ray_address=ray_address, data=data, shard=shard, time_limit=time_limit,
            only_failed=only_failed, tensorboard=tensorboard,
        )  # fmt: skip
    except KeyboardInterrupt as stopped:
        say(f"interrupted; what is done is in {out}. The same command goes on from there.")
        return getattr(stopped, "status", INTERRUPTED)
    except OSError as error:
        say(f"stopped: {error}. What is done is in {out}; the same command goes on from there.")
        return STUDY_PROBLEM
    if not results.cells.empty:
        with suppress(ValueError):  # no ratio has all its checkpoints yet
            write_scoreboard([out], out)
        page = write_report(out)
        say(summary(out))
        say(f"report: {page}")
    if not results.failures.empty:
        say(f"{len(results.failures)} jobs failed: {out / 'failures.csv'}. The same command tries them again.")
        return FAILED_JOBS
    return 0


def parse(recipe: Recipe, argv: Sequence[str]) -> tuple[Namespace, Study]:
    """Options and the study they ask for. ConfigError or ArgumentError in one sentence."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default="quick")
    first.add_argument("--finetune-setting", default=None)
    chosen, _ = first.parse_known_args(argv)
    base = _named("preset", chosen.preset, recipe.presets)()
    if chosen.finetune_setting is not None:
        base = replace(base, finetune=_named("fine-tune setting", chosen.finetune_setting, recipe.finetune_settings))
    parser = make_parser(recipe)
    parser.set_defaults(flat_values(base))
    try:
        options = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ConfigError(_with_hint(one_sentence(error), parser)) from error
    if options.device is not None:
        options.numerics.device = options.device
    check_run_options(options.workers, options.executor, options.time_limit, options.slots)
    return options, study_from(options, recipe.task)


def check_run_options(workers: int | None, executor: str, time_limit: float | None, slots: int | None = None) -> None:
    """ConfigError for options that no run can have."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is at least 1: got {workers}")
    if slots is not None and slots < 1:
        raise ConfigError(f"--slots is at least 1 worker a GPU: got {slots}")
    if executor not in EXECUTORS:
        raise ConfigError(f"--executor is one of {', '.join(EXECUTORS)}: got {executor!r}")
    if time_limit is not None and not time_limit > 0:
        raise ConfigError(f"--time-limit is a number of seconds above 0: got {time_limit:g}")
    if time_limit is not None and executor == "serial":
        raise ConfigError("--time-limit needs worker processes that can be ended: leave out --executor serial")
    try:
        check_options(executor, workers if executor == "ray" else workers or 1, time_limit, slots)
    except ModuleNotFoundError as error:  # Ray
        raise ConfigError(str(error)) from error


def default_workers() -> int:
    """Workers on this machine unless a number is given: one a core, at most MOST_WORKERS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """(I, N) of "I/N", 1 <= I <= N; None for None. ConfigError in one sentence."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if found is None:
        raise ConfigError(f"--shard is I/N, the I-th of N shares, such as 2/8: got {text!r}")
    i, n = int(found[1]), int(found[2])
    if n < 1 or not 1 <= i <= n:
        raise ConfigError(f"--shard is I/N with N at least 1 and I from 1 to N: got {text!r}")
    return i, n


def make_parser(recipe: Recipe) -> ArgumentParser:
    """The recipe's parser: a few options, and a flag for every field of the study."""
    parser = ArgumentParser(
        prog=f"python -m twore.recipes.{recipe.name}", usage="%(prog)s [options] [--FIELD VALUE ...]",
        description=recipe.about, exit_on_error=False, default_env=False, allow_abbrev=False,
        epilog="Lists are written '[0.3, 0.9]'. Every field below can also stand in a YAML file given with --config.",
    )  # fmt: skip
    parser.add_argument("--preset", default="quick", help=f"one of {', '.join(recipe.presets)}")
    parser.add_argument(
        "--finetune-setting", type=str, default=None, help=f"named fine-tuning: {', '.join(recipe.finetune_settings)}"
    )
    parser.add_argument("--out", type=str, default=None, help="folder of the results (default: runs/RECIPE-PRESET)")
    parser.add_argument("--data", type=str, default=None, help="folder with the data sets (default: $TWORE_DATA)")
    parser.add_argument("--workers", type=int, default=None, help=WORKERS_HELP)
    parser.add_argument("--executor", type=str, default="process", choices=EXECUTORS, help=EXECUTOR_HELP)
    parser.add_argument("--slots", type=int, default=None, metavar="N", help=SLOTS_HELP)
    parser.add_argument("--ray-address", type=str, default=None, metavar="ADDRESS", help=RAY_ADDRESS_HELP)
    parser.add_argument("--device", type=str, default=None, help="short for --numerics.device")
    parser.add_argument("--shard", type=str, default=None, metavar="I/N", help=SHARD_HELP)
    parser.add_argument("--time-limit", type=float, default=None, metavar="SECONDS", help=TIME_LIMIT_HELP)
    parser.add_argument("--only-failed", action="store_true", help=ONLY_FAILED_HELP)
    parser.add_argument("--tensorboard", action="store_true", help="write training curves to OUT/tensorboard")
    parser.add_argument("--dry-run", action="store_true", help=DRY_RUN_HELP)
    parser.add_argument("--calibrate", action="store_true", help=CALIBRATE_HELP)
    parser.add_argument("--config", action="config", help="a YAML file of fields")
    add_study_arguments(parser, recipe.task)
    return parser


def plan_in_words(title: str, study: Study) -> str:
    """How much there is to do, each training and each cell counted once."""
    trajectories = {trajectory.key for trajectory in study.trajectories}
    cells = {
        key for trajectory in study.trajectories for group in trajectory.groups() for key in group.cell_keys.values()
    }
    return (
        f"{title}: {len(trajectories)} trainings, {len(cells):,} cells "
        f"({len(study.checkpoints)} checkpoints x {len(study.ratios)} ratios "
        f"x {len(study.finetune_seeds)} fine-tune seeds)"
    )


def estimate_in_words(
    study: Study, *, workers: int, shard: tuple[int, int] | None, calibrate: bool, data: Path | None
) -> str:
    """Hours and disk of the whole study as a table; measured here, or assumed without data or network."""
    from twore.study import cost
    from twore.study.calibrate import Calibration

    shards = shard[1] if shard else 1
    if not calibrate:
        source = cost.assumed_source(study.numerics)
        return cost.table(cost.estimate(study), workers=workers, shards=shards, source=source) + _stacks(study)
    try:
        measured = Calibration(study, data)
        found = cost.estimate(study, measured)
    except DataError:
        raise
    except ValueError as error:  # a device that is not here
        raise ConfigError(str(error)) from error
    return cost.table(found, workers=workers, shards=shards, source=measured.source) + _stacks(study)


def _stacks(study: Study) -> str:
    """A line for an estimate of a study that trains several models at once."""
    stacked = (study.numerics.stack, study.numerics.dense_stack) != (1, 1)
    return "\nstacks are not counted: the hours are those of one model after the other" if stacked else ""


class _Say(logging.Handler):
    """What the library logs, as lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _show_log() -> None:
    """Show what making data and the like takes and leaves out, unless the caller's program has its own logging."""
    log = logging.getLogger("twore")
    if not log.hasHandlers():
        log.addHandler(_Say())
        log.setLevel(logging.INFO)


def _check_device(study: Study) -> None:
    """ConfigError for a device that is not here."""
    try:
        resolve(study.numerics)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _named(what: str, name: str, table: Mapping[str, T]) -> T:
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(table)}"
        raise ConfigError(f"there is no {what} {name!r}: {hint}")
    return table[name]


def _with_hint(sentence: str, parser: ArgumentParser) -> str:
    """Name the nearest flag when one is unknown."""
    words = [word.split("=")[0] for word in sentence.split() if word.startswith("--")]
    if "unrecognized" not in sentence or not words:
        return sentence
    flags = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(words[0], flags, n=1)
    return f"{sentence}; did you mean {close[0]}?" if close else f"{sentence}; --help lists the flags"
