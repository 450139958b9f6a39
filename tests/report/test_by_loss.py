"""The page of a translation says what the loss says too."""

import pandas as pd
from synthetic import write_run

from twore.report.by_loss import loss_scores, loss_sentence


def test_the_loss_has_its_own_boundary(tmp_path):
    """100 x loss is 400 - score: the boundary is the score's, the gain at the heaviest ratio 9.6 points, 0.096 nats."""
    results = pd.read_csv(write_run(tmp_path, translation=True) / "results.csv")
    assert loss_sentence(results, "BLEU") == [
        "By the loss a token, which is finer than BLEU, stopping early gains 0.005 nats or more from ratio 0.9 on. "
        "At ratio 0.97 the best checkpoint is epoch 8, 0.096 nats below the last one "
        "(s.d. over 3 fine-tune seeds 0.000)."
    ]
    by_loss = loss_scores(results.assign(valid_loss=2.0), "BLEU")
    assert by_loss is not None and (by_loss["valid_score"] == -200).all()


def test_no_gain_and_no_loss(tmp_path):
    results = pd.read_csv(write_run(tmp_path, two_regimes=False) / "results.csv")
    assert loss_sentence(results, "BLEU")[0].endswith("no ratio gains 0.005 nats by stopping early.")
    assert loss_sentence(results, "test accuracy (%)") == []
    assert loss_sentence(results.drop(columns="loss"), "BLEU") == []


def test_nothing_is_said_before_the_last_checkpoint_is_scored(tmp_path):
    results = pd.read_csv(write_run(tmp_path, two_regimes=False) / "results.csv")
    last = (results["epoch"] == results["epoch"].max()) & (results["ratio"] == results["ratio"].max())
    assert loss_sentence(results[~last], "BLEU") == []


def test_a_choice_by_the_loss_is_never_made_on_bleu(tmp_path):
    results = pd.read_csv(write_run(tmp_path) / "results.csv").assign(valid_score=1.0)
    by_loss = loss_scores(results.drop(columns="valid_loss", errors="ignore"), "BLEU")
    assert by_loss is not None and "valid_score" not in by_loss
