"""The scoreboard: known regrets, fairness, clusters, leave-one-out, and what must not change it."""

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import SCORES, make_setting
from published_grid import CKA, LMC, published, published_results

from twore.analysis import (
    Predictor,
    SettingTables,
    budget_rule,
    choose_best,
    clusters,
    comparable,
    fixed_pilot,
    full_grid_pilot,
    gather,
    leave_one_out,
    score_settings,
    scoreboard,
    settings_of,
    signal_rule,
    split_dense_seeds,
    summarise,
    trivial_rules,
)
from twore.analysis.evaluation import tau_b
from twore.analysis.scoreboard import BOARD

TOLD = signal_rule("told", better="high", table="probes", needs="a few batches")
FOOLED = signal_rule("fooled", better="high", table="probes", needs="a few batches")
LIGHT_ONLY = {0.5: SCORES[0.5]}  # no boundary
LATE = {0.5: (70.0, 75.0, 80.0, 85.0, 90.0), 0.9: (60.0, 62.0, 64.0, 72.0, 70.0)}  # gain 2


def rows_of(board: pd.DataFrame) -> pd.DataFrame:
    return board.set_index("predictor")


def test_a_metric_that_equals_the_score_has_no_regret_and_tau_one():
    board = rows_of(scoreboard([make_setting("a"), make_setting("b", LATE)], [*trivial_rules(), TOLD, FOOLED]))
    told, fooled = board.loc["largest told"], board.loc["largest fooled"]
    assert told["mean_regret"] == 0.0 and told["worst_cell"] == 0.0
    assert told["tau"] == pytest.approx(1.0) and fooled["tau"] == pytest.approx(-1.0)
    assert told["skill"] == 1.0 and told["hits"] == 1.0 and told["boundary_error"] == 0.0
    assert fooled["skill"] < 0


def test_means_over_settings_by_hand():
    board = rows_of(scoreboard([make_setting("a"), make_setting("b", LATE), make_setting("c", LIGHT_ONLY)],
                               [*trivial_rules(), FOOLED]))  # fmt: skip
    final = board.loc["final checkpoint"]  # mean regrets: (0 + 8) / 2, (0 + 2) / 2, 0
    assert final["mean_regret"] == pytest.approx(5 / 3)
    assert final["heavy_regret"] == pytest.approx(5.0) and final["heavy_settings"] == 2  # c has no heavy ratio
    assert final["worst_regret"] == 4.0 and final["worst_setting"] == "a" and final["worst_cell"] == 8.0
    assert final["baseline"] == "final checkpoint" and final["skill"] == 0.0 and final["better_than_final"] == 0.0
    fooled = board.loc["largest fooled"]  # epoch 4 throughout: (20 + 12) / 2, (20 + 12) / 2, 20
    assert fooled["mean_regret"] == pytest.approx(52 / 3)
    assert fooled["skill"] == pytest.approx(1 - 52 / 5)
    assert board.loc["random epoch", "normalised_regret"] == pytest.approx(1.0)


def test_best_first_and_rules_that_do_not_apply_everywhere_last():
    settings = [make_setting("a"), replace(make_setting("b"), probes=None)]
    board = scoreboard(settings, [*trivial_rules(), TOLD, FOOLED])
    assert list(board.columns) == list(BOARD)
    assert board["predictor"].tolist()[-2:] == ["largest told", "largest fooled"]
    assert board["settings"].tolist()[-2:] == [1, 1]
    full = board[board["settings"] == 2]["mean_regret"]
    assert full.is_monotonic_increasing
    assert "last before the first rate drop" not in set(board["predictor"])  # never applies: left out, not zero


def test_intervals_are_over_clusters_and_need_two():
    many = [make_setting(str(i), {0.9: (60.0, 70.0, 69.0, 68.0, 70.0 - i)}) for i in range(8)]
    final = rows_of(scoreboard(many, trivial_rules())).loc["final checkpoint"]
    assert final["clusters"] == 8 and final["mean_low"] < final["mean_regret"] == 3.5 < final["mean_high"]
    assert final["worst_low"] <= final["worst_high"] == final["worst_regret"] == 7.0
    shared = [replace(setting, cluster="one run") for setting in many]
    alone = rows_of(scoreboard(shared, trivial_rules())).loc["final checkpoint"]
    assert alone["clusters"] == 1 and np.isnan(alone["mean_low"]) and alone["mean_regret"] == 3.5
    pairs = [replace(setting, cluster=str(i // 4)) for i, setting in enumerate(many)]
    wide = rows_of(scoreboard(pairs, trivial_rules())).loc["final checkpoint"]
    assert wide["mean_high"] - wide["mean_low"] > final["mean_high"] - final["mean_low"]  # fewer independent settings


def test_settings_with_a_checkpoint_in_common_are_one_cluster():
    settings = [make_setting("a", key="x"), make_setting("b"), make_setting("c", key="x"), make_setting("d", key="y")]
    assert clusters(settings) == ["a", "b", "a", "d"]
    linked = [*settings, replace(make_setting("e", key="y"), cluster="k"), replace(make_setting("f"), cluster="k")]
    assert clusters(linked) == ["a", "b", "a", "d", "d", "d"]  # f by its cluster, e by its key
    bridge = pd.concat([settings[0].checkpoints, settings[3].checkpoints])
    both = [settings[0], settings[3], replace(make_setting("g"), checkpoints=bridge)]
    assert clusters(both) == ["a", "a", "a"]  # g has checkpoints of both


def test_names_and_order_of_settings_and_rows_do_not_change_a_number():
    settings = [make_setting("a", noise=1.0), make_setting("b", LATE, noise=1.0), make_setting("c", LIGHT_ONLY)]
    rules = [*trivial_rules(), TOLD, fixed_pilot()]
    numbers = [name for name in BOARD if name not in ("worst_setting",)]
    exact = [n for n in numbers if not n.endswith(("_low", "_high"))]  # a resample depends on the order of clusters
    plain = scoreboard(settings, rules)
    turned = scoreboard(settings[::-1], rules)
    pd.testing.assert_frame_equal(plain[exact], turned[exact])
    renamed = [replace(setting, name=f"z{i}") for i, setting in enumerate(settings)]
    pd.testing.assert_frame_equal(plain[numbers], scoreboard(renamed, rules)[numbers])
    mixed = [replace(s, results=s.results.sample(frac=1.0, random_state=0),
                     probes=s.probes.sample(frac=1.0, random_state=0)) for s in settings]  # fmt: skip
    pd.testing.assert_frame_equal(plain, scoreboard(mixed, rules))


def test_a_pilot_is_not_judged_by_the_luck_it_was_chosen_for():
    rng = np.random.default_rng(0)
    flat = make_setting(scores={0.9: (70.0,) * 5}, seeds=tuple(range(6)), valid=False)
    noisy = replace(flat, results=flat.results.assign(score=70 + rng.normal(size=len(flat.results))))
    row = score_settings([noisy], [full_grid_pilot(), *trivial_rules()]).set_index("predictor")
    assert row.loc["all checkpoints, one seed", "mean_regret"] > 0.1  # seen scores would give about -0.5
    assert row.loc["all checkpoints, one seed", "cost"] == pytest.approx(1 / 6)
    by_hand = []
    scores = noisy.results.pivot(index="finetune_seed", columns="epoch", values="score").to_numpy()
    for seed in range(6):
        rest = np.delete(scores, seed, axis=0).mean(axis=0)
        by_hand.append(rest[scores.mean(axis=0).argmax()] - rest[scores[seed].argmax()])
    assert row.loc["all checkpoints, one seed", "mean_regret"] == pytest.approx(np.mean(by_hand))


def test_a_pilot_hits_on_the_seeds_it_did_not_choose_with():
    """Epoch 8 is 81 and 77, all others 80: of its seed it is the best, of the mean a tie, of the other one no hit."""
    flat = make_setting(scores={0.9: (80.0,) * 5}, seeds=(0, 1), valid=False)
    at = (flat.results["epoch"] == 8).to_numpy()
    lucky = flat.results["score"].mask(at & (flat.results["finetune_seed"] == 0), 81.0)
    results = flat.results.assign(score=lucky.mask(at & (flat.results["finetune_seed"] == 1), 77.0))
    row = score_settings([replace(flat, results=results)], [full_grid_pilot()]).iloc[0]
    assert (row["hits"], row["mean_regret"]) == (0.5, 1.5)  # seed 0 picks 8 and loses 3, seed 1 picks a right one


def test_a_pilot_hits_within_the_spread_of_all_seeds_whatever_the_oracle():
    """The seeds are 3 points apart and each has another best epoch, by a tenth: no pick is worse beyond noise."""
    flat = make_setting(scores={0.9: (80.0,) * 5}, seeds=(0, 1), dense=(0, 1), valid=False)
    table = flat.results
    own_best = (table["epoch"] == np.where(table["finetune_seed"] == 0, 8, 12)).to_numpy()
    setting = replace(flat, results=table.assign(score=table["score"] + 3.0 * table["finetune_seed"] + 0.1 * own_best))
    for oracle in ("mean", "others"):
        row = score_settings([setting], [full_grid_pilot()], oracle=oracle).iloc[0]
        assert (row["hits"], row["mean_regret"]) == (1.0, pytest.approx(0.05 if oracle == "mean" else 0.1)), oracle


def test_a_pilot_chooses_on_validation():
    setting = make_setting(seeds=(0,))
    wrong = setting.results.assign(valid_score=-setting.results["score"])
    row = score_settings([replace(setting, results=wrong)], [full_grid_pilot()]).iloc[0]
    assert row["mean_regret"] == (20.0 + 12.0) / 2  # it takes epoch 4 at both ratios
    unheld = make_setting(seeds=(0,), valid=False)
    assert score_settings([unheld], [full_grid_pilot()]).empty


def test_tau_counts_ties_and_is_undefined_for_a_constant():
    assert tau_b(np.array([1.0, 2, 3]), np.array([1.0, 1, 2])) == pytest.approx(2 / (3 * 2) ** 0.5)
    assert np.isnan(tau_b(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))
    assert np.isnan(tau_b(np.array([1.0, 2, 3]), np.array([0.3, 0.1 + 0.2, 0.3])))  # equal but for rounding
    assert tau_b(np.array([1.0, np.nan, 3]), np.array([1.0, 9, 2])) == pytest.approx(1.0)


def test_the_boundary_a_rule_draws_is_compared_with_the_measured_one():
    scores = {0.5: SCORES[0.5], 0.8: SCORES[0.5], 0.9: SCORES[0.9], 0.95: SCORES[0.9]}
    late = Predictor("late", "nothing", lambda s: {0.5: 20, 0.8: 20, 0.9: 20, 0.95: 8})
    early = Predictor("early", "nothing", lambda s: {0.5: 20, 0.8: 8, 0.9: 8, 0.95: 8})
    rules = [late, early, *trivial_rules()]
    errors = score_settings([make_setting(scores=scores, probes=False)], rules).set_index("predictor")["boundary_error"]
    step = np.log(0.2 / 0.1) / 2 + np.log(0.1 / 0.05) / 2  # between the middles of 0.8-0.9 and 0.9-0.95
    assert errors["late"] == pytest.approx(step)
    assert errors["early"] == pytest.approx(np.log(0.5 / 0.2) / 2 + np.log(0.2 / 0.1) / 2)
    assert np.isnan(errors["random epoch"])
    nowhere = score_settings([make_setting(scores=LIGHT_ONLY)], rules[2:])
    assert nowhere["boundary_error"].isna().all()


def test_leave_one_out_learns_nothing_from_the_setting_it_is_judged_on():
    seen = []

    def factory(settings):
        names = {setting.name for setting in settings}
        seen.append(names)
        return Predictor("x", "weights", lambda s: {r: 4 if s.name in names else 20 for r in (0.5, 0.9)}, cost=0.25)

    settings = [make_setting("a", key="x"), make_setting("b"), make_setting("c", key="x")]
    rule = leave_one_out(factory, settings, name="tuned")
    assert seen == [{"b"}, {"a", "c"}]  # a and c prune the same dense run
    assert all(set(rule.pick(setting).values()) == {20} for setting in settings)
    assert rule.needs == "weights" and rule.cost_of(settings[0]) == 0.25
    with pytest.raises(ValueError, match="none of them"):
        rule.pick(make_setting("other"))
    with pytest.raises(ValueError, match="two independent settings"):
        leave_one_out(factory, [settings[0], settings[2]], name="tuned")


def test_tuning_by_choice_is_worse_out_of_sample_than_in_sample():
    peaks = [(90.0, 80, 80, 80, 80), (80, 90.0, 80, 80, 80), (80, 80, 90.0, 80, 80)]
    settings = [make_setting(str(i), {0.9: tuple(map(float, row))}) for i, row in enumerate(peaks)]
    candidates = [budget_rule(share) for share in (0.2, 0.4, 0.6)]
    board = rows_of(scoreboard(settings, [*trivial_rules(), *candidates], tuned={"tuned": choose_best(candidates)}))
    # each epoch is right in one setting; without it, that epoch is the one never right
    assert board.loc["40 % of the budget", "mean_regret"] == pytest.approx(20 / 3)
    assert board.loc["tuned", "mean_regret"] == pytest.approx(10.0)


def test_dense_runs_one_by_one():
    first = make_setting(dense=(0,)).results
    second = make_setting(scores={0.5: SCORES[0.5], 0.9: LATE[0.9]}, dense=(1,)).results
    both = replace(make_setting(dense=(0, 1)), results=pd.concat([first, second]))
    parts = split_dense_seeds(both)
    assert [part.name for part in parts] == ["one dense_seed=0", "one dense_seed=1"] and len(set(clusters(parts))) == 1
    each = rows_of(scoreboard([both], trivial_rules(), dense="each")).loc["final checkpoint"]
    assert each["settings"] == 2 and each["clusters"] == 1 and each["worst_regret"] == 4.0
    mean = rows_of(scoreboard([both], trivial_rules())).loc["final checkpoint"]
    assert mean["mean_regret"] == pytest.approx((0 + (69.0 - 67.0)) / 2)  # means at 0.9: 60, 67, 67, 69, 67
    others = rows_of(scoreboard([both], trivial_rules(), oracle="others")).loc["final checkpoint"]
    # 0.9: seed 0 at epoch 16 has 66, seed 1 at epoch 8 has 62: 64 on average; the final checkpoint has 67
    assert others["mean_regret"] == pytest.approx((0 + (64.0 - 67.0)) / 2)


def test_unfinished_grids_are_compared_on_what_is_complete():
    setting = make_setting("a")
    some = setting.results[~((setting.results["ratio"] == 0.5) & (setting.results["epoch"] == 8))]
    none = make_setting("b").results.query("epoch != 8 or ratio == 0.1").query("epoch == 4 or ratio == 0.9")
    none = none.drop(none[(none["ratio"] == 0.9) & (none["epoch"] == 20)].index)
    one_epoch = make_setting("c").results.query("epoch == 4")
    settings = [replace(setting, results=some), SettingTables("c", one_epoch)]
    board = scoreboard(settings, trivial_rules())
    assert board.attrs["left_out"] == ["c"]
    assert rows_of(board).loc["final checkpoint", "mean_regret"] == 8.0  # ratio 0.9 only
    with pytest.raises(ValueError, match="let the studies finish"):
        scoreboard([SettingTables("c", one_epoch)], trivial_rules())


@pytest.mark.parametrize(("name", "column"), [("results", "ratio"), ("checkpoints", "epoch"), ("probes", "ratio")])
def test_a_table_without_its_columns_is_named(tmp_path, name, column):
    make_setting().results.to_csv(tmp_path / "results.csv", index=False)
    whole = pd.DataFrame({"epoch": [4], "ratio": [0.5], "score": [1.0]})
    whole.drop(columns=column).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(ValueError, match=rf"{name}\.csv has no column {column}"):
        settings_of(tmp_path)


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "results.csv.gz").write_bytes(b"not packed")
    with pytest.raises(ValueError, match=r"results\.csv\.gz is damaged, or no table"):
        settings_of(tmp_path)
    make_setting().results.to_csv(tmp_path / "results.csv", index=False)
    packed = gzip.compress((tmp_path / "results.csv").read_bytes())
    (tmp_path / "pairs.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(ValueError, match=r"pairs\.csv\.gz is damaged"):
        settings_of(tmp_path)
    (tmp_path / "pairs.csv.gz").unlink()
    (tmp_path / "checkpoints.csv").write_bytes(b"\xff\xfe\x00epoch")
    with pytest.raises(ValueError, match=r"checkpoints\.csv is damaged"):
        settings_of(tmp_path)


def test_run_folders_are_read_and_named_apart(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        two = [make_setting("depth=8"), make_setting("depth=20", LATE)]
        for table in ("results", "checkpoints", "probes"):
            pd.concat([getattr(s, table) for s in two]).to_csv(folder / f"{table}.csv", index=False)
    settings = gather([tmp_path / "a", str(tmp_path / "b")])
    assert len(settings) == 4 and settings[0].name.endswith("/a: depth=8") and settings[3].pairs is None
    assert len(set(clusters(settings))) == 2  # the same dense runs in both studies
    board = rows_of(scoreboard([tmp_path / "a"], [*trivial_rules(), TOLD]))
    assert board.loc["largest told", "mean_regret"] == 0.0 and board.loc["final checkpoint", "mean_regret"] == 2.5
    with pytest.raises(ValueError, match="same folder given twice"):
        gather([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(ValueError, match="at least one run folder"):
        gather([])
    with pytest.raises(FileNotFoundError, match="no results.csv"):
        settings_of(tmp_path)
    with pytest.raises(ValueError, match="tables are"):
        settings_of({"checkpoints": pd.DataFrame()})


def test_two_predictors_of_one_name_and_wrong_options_are_refused():
    with pytest.raises(ValueError, match="two predictors"):
        score_settings([make_setting()], [TOLD, TOLD])
    with pytest.raises(ValueError, match="dense is"):
        comparable([make_setting()], dense="all")
    with pytest.raises(ValueError, match="no predictor"):
        summarise(score_settings([replace(make_setting(), probes=None)], [TOLD]))


def test_default_board_of_a_setting_without_any_extra_table():
    names = set(scoreboard([SettingTables("x", make_setting().results)])["predictor"])
    assert {"final checkpoint", "random epoch", "golden section, 4 cells", "all checkpoints, one seed"} <= names
    recalibrated = make_setting()
    recalibrated = replace(recalibrated, probes=recalibrated.probes.rename(columns={"told": "recalibrated_score"}))
    rows = rows_of(scoreboard([recalibrated]))
    assert rows.loc["pilot of 3: 2 best by largest recalibrated_score, final", "mean_regret"] == 0.0


def test_the_published_grid_on_the_board():
    pairs = published(CKA).rename(columns={"value": "cka"}).assign(lmc=published(LMC)["value"])
    setting = SettingTables("published", published_results(), pairs=pairs)
    board = rows_of(scoreboard([setting]))
    assert board.loc["largest cka", "mean_regret"] == pytest.approx(0.17, abs=0.005)
    assert board.loc["largest lmc", "mean_regret"] == pytest.approx(1.00, abs=0.008)
    assert board.loc["final checkpoint", "mean_regret"] == pytest.approx(1.51, abs=0.005)
    assert board.loc["50 % of the budget", "mean_regret"] == pytest.approx(0.06, abs=0.005)  # epoch 80
    assert board.loc["random epoch", "mean_regret"] == pytest.approx(0.87, abs=0.005)
    assert board.loc["largest cka", "skill"] < 0  # no better than "50 % of the budget", and needs the grid


@pytest.mark.parametrize(("needs", "sees"), [("nothing", []), ("weights", []), ("pilot", ["score"]), ("grid", None)])
def test_a_predictor_sees_no_more_than_it_needs(needs, sees):
    seen = []

    def pick(setting):
        seen.append([name for name in ("valid_score", "score") if name in setting.results.columns])
        return {0.5: 20, 0.9: 8}

    score_settings([make_setting()], [Predictor("spy", needs, pick)])
    assert seen == [["valid_score", "score"] if sees is None else sees] * (3 if needs == "pilot" else 1)
