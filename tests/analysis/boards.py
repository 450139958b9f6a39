"""Settings with known scores and signals, for the tests of rules, pilots and the scoreboard."""

import numpy as np
import pandas as pd

from twore.analysis import SettingTables

EPOCHS = (4, 8, 12, 16, 20)
SCORES = {0.5: (70.0, 75.0, 80.0, 85.0, 90.0), 0.9: (60.0, 72.0, 70.0, 66.0, 64.0)}  # gains: 0 and 8 points


def make_setting(
    name="one", scores=SCORES, *, seeds=(0, 1, 2), dense=(0,), valid=True, rates=None, probes=True, key=None, noise=0.0
) -> SettingTables:
    """Every table of a setting. `metric` of the checkpoints is the negative epoch; `told` of the probes the score
    itself; `fooled` its negative. valid_score = score - 5. key: of the dense run's checkpoints."""
    rng = np.random.default_rng(0)
    cells = pd.DataFrame([
        {"setting": name, "dense_seed": d, "epoch": e, "ratio": ratio, "finetune_seed": seed,
         "valid_score": score - 5 if valid else None, "score": score + noise * rng.normal()}
        for d in dense for ratio, row in scores.items() for e, score in zip(EPOCHS, row) for seed in seeds
    ])  # fmt: skip
    points = pd.DataFrame([
        {"setting": name, "dense_seed": d, "epoch": e, "lr": None if e == 0 else (rates or {}).get(e, 0.1),
         "valid_score": 50.0 + (0 if e == 20 else e), "metric": -e, "key": f"{key or name}-{d}-{e}"}
        for d in dense for e in (0, *EPOCHS)
    ])  # fmt: skip
    told = pd.DataFrame([
        {"setting": name, "dense_seed": d, "epoch": e, "ratio": ratio, "told": score, "fooled": -score}
        for d in dense for ratio, row in scores.items() for e, score in zip(EPOCHS, row)
    ])  # fmt: skip
    return SettingTables(name, cells, checkpoints=points, probes=told if probes else None)
