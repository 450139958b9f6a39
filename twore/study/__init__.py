"""The study: what it is (specs), what is done (store), what to do next (schedule), and running it."""

from twore.study.config import ConfigError, load_study, save_study
from twore.study.run import run_study
from twore.study.specs import Study
from twore.study.store import Store
from twore.study.tables import Results, read_results

__all__ = ["ConfigError", "Results", "Store", "Study", "load_study", "read_results", "run_study", "save_study"]
