"""The translation task on small text: its loss, batches, scores and what it refuses."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.trainer_pt_utils import LabelSmoother

from twore.data import DataError
from twore.data.vocabulary import EOS, PAD
from twore.pruning import prunable_weights
from twore.seeds import seed_everything
from twore.study.scoring import samples_of, score_model
from twore.tasks import TranslationTask, translation
from twore.tasks.bleu import translation_scores
from twore.training import Numerics, Run, Training, train

CPU = Numerics(device="cpu", precision="float32")
TASK = TranslationTask(
    dataset="generated", pairs=300, vocab_size=300, d_model=32, layers=1, heads=2, ffn=32, eval_pairs=40,
    scored_on="test", chosen_on="validation", also=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    os.environ["TWORE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield TASK.load(None, torch.device("cpu"))
    del os.environ["TWORE_CACHE"]


@pytest.fixture(scope="module")
def model():
    seed_everything(0)
    return TASK.build().eval()


def test_an_epoch_is_every_pair_once_within_the_budget(data):
    pairs, tokens = 0, 0
    for batch in data.epoch(200, seed=1):
        assert batch.source.numel() <= 200
        assert batch.target.numel() <= 200
        assert len(batch.where) == len(batch.wanted)
        pairs, tokens = pairs + len(batch.source), tokens + len(batch.wanted)
    assert pairs == 300
    assert tokens == int(data.train.target.lengths.sum())


def test_the_number_of_updates_does_not_depend_on_the_seed(data):
    assert {len(list(data.epoch(200, seed))) for seed in range(3)} == {data.updates(200)}


def test_the_decoder_reads_what_it_has_to_say_one_step_late(data):
    batch = next(data.epoch(200, seed=0))
    flat = batch.target.flatten()
    assert PAD not in batch.wanted
    row_ends = batch.wanted == EOS
    assert int(row_ends.sum()) == len(batch.source)
    later = flat[batch.where[1:]][~row_ends[:-1]]  # within a sentence the next input is this target
    assert torch.equal(later, batch.wanted[:-1][~row_ends[:-1]])


def test_batches_of_two_seeds_differ_in_shape(data):
    shapes = [[batch.source.shape for batch in data.epoch(300, seed)] for seed in (0, 1)]
    assert len(shapes[0]) == len(shapes[1]) and shapes[0] != shapes[1]
    assert not TASK.equal_batches  # what it says to a study with dense stacks


def test_loss_is_transformers_label_smoother(data, model):
    batch = next(data.epoch(300, seed=0))
    total, count = data.loss(model, batch)
    labels = torch.full(batch.target.shape, -100)
    labels.view(-1)[batch.where] = batch.wanted
    output = model(input_ids=batch.source, attention_mask=(batch.source != PAD).long(), decoder_input_ids=batch.target)
    theirs = LabelSmoother(epsilon=0.1)(output, labels)  # a mean over the target tokens
    assert count == len(batch.wanted)
    assert float(total) / count == pytest.approx(float(theirs), rel=1e-6)


def test_outputs_are_probabilities_a_row_a_target_token(data, model):
    rows = 0
    for batch in data.plain():
        p = data.outputs(model, batch)
        torch.testing.assert_close(p.sum(1), torch.ones(len(p)))
        rows += len(p)
    assert rows == int(data.train.target.lengths.sum())


def test_similarity_pairs_limits_what_plain_reads(data, model):
    few = replace(TASK, similarity_pairs=10).load(None, torch.device("cpu"))
    rows = range(0, 300, 30)  # evenly spaced: a corpus may be sorted by domain
    assert sum(len(batch.wanted) for batch in few.plain()) == int(data.train.target.lengths[rows].sum())


def test_the_first_plain_batches_are_not_the_longest_ones(data):
    longest = [max(batch.source.shape[1], batch.target.shape[1]) for batch in data.plain()]
    assert longest != sorted(longest, reverse=True)


def test_no_evaluation_batch_is_larger_than_its_budget_on_either_side(data):
    for batch in data.plain():
        assert max(batch.source.numel(), batch.target.numel()) <= translation.EVAL_TOKENS


def test_every_split_is_scored_with_its_signature(data, model):
    scores = score_model(model, data, CPU)
    for prefix in ("", "valid_"):
        assert 0 <= scores[f"{prefix}score"] <= 100
        assert "tok:13a" in scores[f"{prefix}bleu_signature"]
        assert scores[f"{prefix}loss"] == pytest.approx(math.log(300), rel=0.3)  # untrained: about uniform


def test_loss_of_evaluation_is_cross_entropy_a_token(data, model):
    texts = data.text.sets["test"]
    one_by_one = [data._batch(texts, rows[None]) for rows in torch.arange(len(texts)).numpy()]
    with torch.inference_mode():
        logs = [data.outputs(model, b).log()[torch.arange(len(b.wanted)), b.wanted] for b in one_by_one]
        assert data.evaluate(model, "test")["loss"] == pytest.approx(-float(torch.cat(logs).double().mean()), rel=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_translations_do_not_depend_on_the_evaluation_batch(data, norm, monkeypatch):
    seed_everything(1)
    model = replace(TASK, norm=norm).build().double().eval()
    with torch.no_grad():
        model.lm_head.weight *= 5  # an untrained model is nearly undecided
        together = data.translate(model, "test")
        monkeypatch.setattr(translation, "EVAL_TOKENS", 60)
        assert data.translate(model, "test") == together


def test_samples_are_the_first_sentences_of_the_scored_set(data, model):
    said = samples_of(model, data, CPU)["samples"]
    about = data.describe()["samples"]
    sources, references = data.text.texts("test")
    assert len(said) == len(about) == translation.SAMPLES
    assert [s["input"] for s in about] == sources[:6]
    assert [s["reference"] for s in about] == references[:6]


def test_all_linear_weights_are_prunable_and_no_embedding():
    names = prunable_weights(TASK.build(), kinds=("linear",))
    assert len(names) == 6 + 10 + 1  # a layer's projections in the encoder and in the decoder, and the prediction layer
    assert not [name for name in names if "embed" in name]


def test_a_plan_knows_its_size_without_data():
    task = TranslationTask(pairs=1_280_000)
    assert task.example_counts()["train"] == 1_280_000
    assert task.example_counts().keys() == {"train", "newstest2013", "newstest2014"}
    assert [x.shape for x in task.example_inputs()] == [(1, 34)] * 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"norm": "both"}, "norm is one of"),
        ({"d_model": 30, "heads": 4}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout is in"),
        ({"chosen_on": "newstest2013"}, "different sets"),
        ({"also": ("test",)}, "also cannot name"),
        ({"also": "newstest2014"}, "also is a list of sets"),
        ({"scored_on": "train"}, "no set 'train' to score"),
        ({"dataset": "generated", "also": ()}, "no set 'newstest2013'"),
        ({"chosen_on": "heldout-a"}, "no set 'heldout-a'"),
        ({"source": "fr"}, "is in de and en"),
        ({"heads": 0}, "heads is a whole number"),
        ({"vocab_size": 5.5}, "vocab_size is a whole number"),
        ({"layers": 0}, "layers is a whole number, at least 1"),
        ({"pick": "last"}, "pick"),
        ({"tokenizer": "words"}, "tokenizer"),
    ],
)
def test_bad_fields_are_refused_in_one_sentence(fields, words):
    with pytest.raises(ValueError, match=words) as caught:
        TranslationTask(**fields)
    assert "\n" not in str(caught.value)


def test_a_set_that_the_corpus_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path / "cache"))
    lines = [f"Satz {i} hier, {i * 7} dort." for i in range(60)]
    for name in ("train.de", "train.en", "test.de", "test.en"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines if name.startswith("train") else lines[:5]) + "\n", encoding="utf-8")
    own = replace(TASK, dataset="mine", pairs=0, vocab_size=60, chosen_on="")
    assert len(own.load(tmp_path, torch.device("cpu")).text.sets["test"]) == 5
    with pytest.raises(DataError, match="no set 'dev'.*there are test"):
        replace(own, scored_on="dev").load(tmp_path, torch.device("cpu"))


def test_a_list_of_sets_is_as_good_as_a_tuple():
    held = replace(TASK, heldout=20)
    assert replace(held, also=["heldout-a"]) == replace(held, also=("heldout-a",))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["generated", "wmt14"])
def test_a_model_can_learn_fifty_pairs_by_heart(dataset, monkeypatch, tmp_path):
    folder = os.environ.get("TWORE_DATA")
    if dataset == "wmt14" and not folder:
        pytest.skip("real text is where TWORE_DATA says")
    monkeypatch.setenv("TWORE_CACHE", str(tmp_path))
    task = TranslationTask(
        dataset=dataset, pairs=50, max_words=15, vocab_size=400, d_model=64, layers=2, heads=4, ffn=128, dropout=0.0,
        label_smoothing=0.0, scored_on="test" if dataset == "generated" else "newstest2013", eval_pairs=5, also=(),
    )  # fmt: skip
    data = task.load(Path(folder) if folder else None, torch.device("cpu"))
    seed_everything(0)
    model = task.build()
    spec = Training(
        epochs=200, batch_size=400, optimizer="adam", lr=0.02, weight_decay=0.0, schedule="inverse_sqrt", warmup=50,
        drops=(),
    )  # fmt: skip
    train(Run(model, data, spec, "dense", 0, CPU))
    lines = data.train.target
    references = data.text.vocabulary.decode([lines[row].tolist()[:-1] for row in range(len(lines))])
    model.eval()
    assert translation_scores(data.translate(model, "train"), references)["score"] > 95
