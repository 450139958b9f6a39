"""BLEU and chrF: sacreBLEU's own command on the same files, and values computed by hand."""

from __future__ import annotations

import logging
import math
import subprocess
import sys

import pytest
import sacrebleu

from twore.tasks import bleu
from twore.tasks.bleu import legacy_tokens, translation_scores

REFERENCES = [
    "The cat sat on the red mat.",
    "She didn't see twenty-one dogs, did she?",
    "It costs 1,500 euros today.",
    "Tomorrow we will go home by train.",
]
HYPOTHESES = [
    "The cat sat on the mat.",
    "She did not see twenty-one dogs, did she?",
    "",
    "Tomorrow we go home by train .",
]


def test_equals_the_command(tmp_path):
    for name, lines in (("ref", REFERENCES), ("hyp", HYPOTHESES)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf", "-b", "-w", "4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    scores = translation_scores(HYPOTHESES, REFERENCES)
    printed = [float(line.strip(" ,[]")) for line in done.stdout.split() if line.strip(" ,[]")]
    assert printed == [round(float(scores["score"]), 4), round(float(scores["chrf"]), 4)]
    assert 0 < printed[0] < 100


def test_identical_text_scores_100():
    scores = translation_scores(REFERENCES, REFERENCES)
    assert [scores[name] for name in ("score", "chrf", "legacy_bleu")] == pytest.approx([100, 100, 100])


def test_references_are_prepared_once_and_never_mixed_up(monkeypatch):
    others = [text.upper() for text in REFERENCES]  # as many, as long
    bleu._scorers.cache_clear()
    found = [translation_scores(HYPOTHESES, references) for references in (REFERENCES, others, REFERENCES)]
    assert found[0] == found[2] != found[1]
    assert bleu._scorers.cache_info().misses == 2
    for references, scores in zip((REFERENCES, others), found):
        assert scores["score"] == sacrebleu.corpus_bleu(HYPOTHESES, [references], force=True).score
        assert scores["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, [references]).score
    monkeypatch.setattr(bleu, "KEPT_CHARACTERS", 10)  # a set too large to keep is scored all the same
    assert translation_scores(HYPOTHESES, REFERENCES) == found[0]
    assert bleu._scorers.cache_info().hits == 1


def test_one_sentence_by_hand():
    # 6 words for 7; n-grams found: 6 of 6, 4 of 5 (not `the mat`), 3 of 4, 2 of 3
    expected = 100 * math.exp(1 - 7 / 6) * (6 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    scores = translation_scores(["the cat sat on the mat"], ["the cat sat on the red mat"])
    assert scores["score"] == pytest.approx(expected)
    assert scores["legacy_bleu"] == pytest.approx(expected)


def test_legacy_is_not_smoothed_and_has_other_tokens():
    # no 4-gram is right: smoothed, the score is above 0; nltk's corpus_bleu as the authors used it is 0
    scores = translation_scores(["a b c x d e f"], ["a b c y d e f"])
    assert scores["score"] > 10 and scores["legacy_bleu"] == pytest.approx(0, abs=1e-6)
    assert legacy_tokens("She didn't see John's twenty-one dogs, did she?") == (
        ["She", "did", "n't", "see", "John", "'s", "twenty", "-", "one", "dogs", ",", "did", "she", "?"]
    )
    # 13a leaves didn't whole, so one word is wrong there; legacy tokens have did right: 4 of 5 words against 3 of 4
    partly = translation_scores(["she did not go"], ["she didn't go"])
    assert partly["legacy_bleu"] != pytest.approx(partly["score"])


def test_empty_hypotheses_score_zero():
    scores = translation_scores(["", ""], ["a house is here now", "b"])
    assert [scores[name] for name in ("score", "chrf", "legacy_bleu")] == [0, 0, 0]


def test_signature_names_version_and_tokens():
    signature = str(translation_scores(["a"], ["a"])["bleu_signature"])
    assert f"version:{sacrebleu.__version__}" in signature
    assert "tok:13a" in signature and "case:mixed" in signature and "nrefs:1" in signature


def test_no_warning_about_final_full_stops(caplog):
    lines = ["All of these end so ."] * 200  # sacreBLEU warns from 100 on
    with caplog.at_level(logging.WARNING):
        translation_scores(lines, lines)
    assert not caplog.records


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [(["a"], ["a", "b"], "got 1 hypotheses, 2 references"), ([], [], "at least one sentence")],
)
def test_bad_input(hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        translation_scores(hypotheses, references)
