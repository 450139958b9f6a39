"""What users switch on beside the callback: half precision, evaluation, the best model at the end, a pruned folder."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("accelerate")

from tiny import FAMILIES, Witness, build, rows, trainer  # noqa: E402
from transformers import PrinterCallback  # noqa: E402

from twore.export import LayerChoice, prune_checkpoint  # noqa: E402
from twore.integrations import MASKS_FILE, TworeCallback  # noqa: E402
from twore.pruning import audit_masks, load_masks  # noqa: E402

RATIO = 0.8
BEST = {  # of every checkpoint the first: the loss falls
    "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
    "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True,
}  # fmt: skip


def made_of(name, out, callback, *others, **arguments):
    made = trainer(name, out, callback, *others, **arguments)
    made.remove_callback(PrinterCallback)
    return made


def held_by(name, **options):
    return TworeCallback(ratio=RATIO, exclude=FAMILIES[name].exclude, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pruned_folder_fine_tuned_by_the_trainer(name, tmp_path):
    """twore prune, from_pretrained, 50 updates with the mask file, save, load: the same zeros all the way."""
    build(name).save_pretrained(tmp_path / "dense")
    pruned = prune_checkpoint(tmp_path / "dense", RATIO, tmp_path / "pruned", choose=LayerChoice(tied="skip"))
    callback = TworeCallback(masks=tmp_path / "pruned" / MASKS_FILE)
    model = type(build(name)).from_pretrained(tmp_path / "pruned")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    witness = Witness(callback)
    made = made_of(name, tmp_path / "run", callback, witness, model=model)
    made.train()
    assert witness.revived == [0] * 50
    made.save_model(str(tmp_path / "tuned"))
    again = type(model).from_pretrained(tmp_path / "tuned").state_dict()
    masks = load_masks(pruned.masks)
    assert set(masks) == set(pruned.layers["name"])
    for key, mask in masks.items():
        assert torch.equal(again[key] != 0, mask)  # what was kept has moved, and nothing of it to zero
        assert not torch.equal(again[key], before[key])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("full", [False, True])
def test_half_precision(precision, full, tmp_path):
    callback = held_by("bert")
    witness = Witness(callback)
    more = {f"{precision}_full_eval": True, "eval_strategy": "steps", "eval_steps": 2} if full else {precision: True}
    made_of("bert", tmp_path, callback, witness, max_steps=4, **more).train()
    assert witness.revived == [0] * 4


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_the_best_model_at_the_end(name, tmp_path):
    callback = held_by(name)
    two = {"predict_with_generate": True} if FAMILIES[name].sequence_to_sequence else {}
    made = made_of(name, tmp_path, callback, max_steps=6, eval_on_start=True, **BEST, **two)
    made.train()
    assert made.state.best_model_checkpoint.endswith("checkpoint-2")
    assert audit_masks(made.model, callback.masks).revived == 0
    best = type(made.model).from_pretrained(tmp_path / "checkpoint-2").state_dict()
    assert all(torch.equal(value, best[key]) for key, value in made.model.state_dict().items())
    assert all((tmp_path / f"checkpoint-{step}" / MASKS_FILE).is_file() for step in (2, 4, 6))


def test_resumed_with_the_best_model_of_before(tmp_path):
    made_of("bert", tmp_path, held_by("bert", stop_at=4), max_steps=8, **BEST).train()
    callback = held_by("bert")
    made = made_of("bert", tmp_path, callback, max_steps=8, seed=3, **BEST)
    made.train(resume_from_checkpoint=True)
    assert made.state.global_step == 8 and made.state.best_model_checkpoint.endswith("checkpoint-2")
    assert audit_masks(made.model, callback.masks).revived == 0


def test_evaluating_before_training_prunes_nothing(tmp_path):
    callback = held_by("bert", metrics_every=2)
    made = made_of("bert", tmp_path, callback, max_steps=2, eval_strategy="epoch")
    callback.bind(made)
    dense = {key: value.clone() for key, value in made.model.state_dict().items()}
    first = made.evaluate()["eval_loss"]
    assert all(torch.equal(value, dense[key]) for key, value in made.model.state_dict().items())
    made.train()
    assert made.evaluate()["eval_loss"] != first and len(made.predict(rows("bert")).predictions) == 24
    assert audit_masks(made.model, callback.masks).revived == 0
    assert [entry["step"] for entry in made.state.log_history if "density" in entry] == [0, 2]
