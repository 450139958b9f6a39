"""twore short DIR --out SHORT FIELD=VALUE...: a short pilot beside a study, its dense runs not trained again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from twore.commands.problem import problem


def add(commands: Any) -> None:
    """Declare `twore short` among the subcommands of argparse."""
    short = commands.add_parser("short", help="fine-tune a study's cells for a fraction", description=run.__doc__)
    short.add_argument("folder", type=Path, help="the run folder of the study; it is only read")
    short.add_argument("fields", nargs="+", metavar="FIELD=VALUE", help="of finetune: epochs=1 share=0.5 lr=0.05 ...")
    short.add_argument("--out", type=Path, required=True, help="folder of the short pilot")
    short.add_argument("--seeds", type=int, default=1, help="fine-tune seeds, after those of the study (default: 1)")
    short.add_argument("--workers", type=int, help="worker processes (default: 1)")
    short.add_argument("--data", help="folder with the data sets (default: $TWORE_DATA)")
    short.add_argument("--dry-run", action="store_true", help="print the plan with hours and disk, and stop")
    short.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Fine-tune every cell of a study for a fraction of its fine-tuning, from the same dense checkpoints; then
    `twore score DIR --pilot-from SHORT` says what the best of that would have been worth. Dense runs that the folder's
    store does not have are trained. The same command resumes."""
    sys.path.insert(0, "")  # as `twore run`
    from twore.data import DataError, data_folder  # torch is imported only by what runs
    from twore.recipes.command import check_run_options, estimate_in_words, execute, plan_in_words
    from twore.study.config import ConfigError, load_study
    from twore.study.create import STUDY_FILE, open_study
    from twore.study.short import share_dense_runs, short_study

    try:
        check_run_options(options.workers, "process", None, None)
        if options.seeds < 1:
            raise ConfigError(f"--seeds is at least 1: got {options.seeds}")
        out = options.out.resolve()
        if options.folder.resolve() in (out, *out.parents):
            raise ConfigError(f"--out {options.out} is the study itself, or lies in it: name a folder elsewhere")
        study = short_study(load_study(options.folder / STUDY_FILE), _fields(options.fields), seeds=options.seeds)
        workers = options.workers or 1
        plan = plan_in_words(study.name, study)
        if options.dry_run:
            print(f"{plan}\n{estimate_in_words(study, workers=workers, shard=None, calibrate=False, data=None)}")
            return 0
        data = data_folder(options.data)
        open_study(study, options.out, data)  # refuses the folder of another study before anything is put there
        count = share_dense_runs(options.folder, options.out)
        print(f"{plan}; {count} files of dense runs taken over", file=sys.stderr, flush=True)
        return execute(study, options.out, workers=workers, executor="process", data=data)
    except (ConfigError, DataError) as error:
        return problem(error)


def _fields(words: list[str]) -> dict[str, Any]:
    """Name -> value of words NAME=VALUE; ConfigError for any other."""
    from twore.study.config import ConfigError

    fields = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ConfigError(f"fields are written FIELD=VALUE, such as lr=0.05: got {word!r}")
        try:
            fields[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{word!r} has no value that can be read, such as lr=0.05 or drops=[1]") from error
    return fields
