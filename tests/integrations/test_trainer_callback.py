"""Zeros stay exactly zero under the Trainer; metrics, saving and stopping; checkpoints; what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate")

from tiny import FAMILIES, Witness, build, rows, trainer  # noqa: E402
from transformers import PrinterCallback, TrainerCallback  # noqa: E402

from twore.integrations import MASKS_FILE, TworeCallback  # noqa: E402
from twore.integrations.hold import unwrapped  # noqa: E402
from twore.metrics import random_distance, stable_rank  # noqa: E402
from twore.pruning import (  # noqa: E402
    apply_masks,
    audit_masks,
    hold_masks,
    load_masks,
    make_masks,
    prunable_weights,
    save_masks,
)

RATIO = 0.8


def quiet(made):
    made.remove_callback(PrinterCallback)
    return made


def masks_of(model, ratio=RATIO):
    return make_masks({name: weight.detach() for name, weight in prunable_weights(model).items()}, ratio)


@pytest.mark.parametrize("name", FAMILIES)
def test_zeros_stay_zero(name, tmp_path):
    """50 updates of AdamW with weight decay, accumulation and clipping: zero after each, and in what is saved."""
    callback = TworeCallback(ratio=RATIO, exclude=FAMILIES[name].exclude)
    witness = Witness(callback)
    made = quiet(trainer(name, tmp_path, callback, witness))
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    made.train()
    assert witness.revived == [0] * 50
    masks = callback.masks
    assert list(masks) == list(prunable_weights(made.model, exclude=FAMILIES[name].exclude))
    assert all(int((~mask).sum()) == round(RATIO * mask.numel()) for mask in masks.values())
    after = made.model.state_dict()
    for key, mask in masks.items():
        assert float(after[key][~mask].abs().max()) == 0.0
        assert not torch.equal(after[key][mask], before[key][mask])  # the others were trained
    made.save_model(str(tmp_path / "final"))
    again = type(made.model).from_pretrained(tmp_path / "final")
    assert audit_masks(again, masks).revived == 0


def test_without_the_callback_the_zeros_are_lost(tmp_path):
    made = quiet(trainer("bert", tmp_path, max_steps=3))
    masks = masks_of(made.model)
    apply_masks(made.model, masks)
    made.train()
    assert audit_masks(made.model, masks).revived > 1000


def test_momentum_from_before_does_not_revive(tmp_path):
    """A Trainer keeps its optimiser: its moments of removed weights go on pushing after the pruning."""
    made = quiet(trainer("bert", tmp_path, max_steps=3))
    made.train()
    assert made.optimizer.state_dict()["state"]
    callback = TworeCallback(ratio=RATIO).bind(made)
    witness = Witness(callback)
    made.add_callback(witness)
    made.train()
    assert witness.revived == [0] * 3


def test_masks_may_be_given_as_a_mapping_or_as_a_file(tmp_path):
    masks = masks_of(build("bert", seed=5))  # of another model: not what this one's magnitudes would say
    save_masks(tmp_path / "some.safetensors", masks)
    for given in (masks, tmp_path / "some.safetensors", str(tmp_path / "some.safetensors")):
        callback = TworeCallback(masks=given)
        made = quiet(trainer("bert", tmp_path, callback, max_steps=3))
        made.train()
        assert all(torch.equal(callback.masks[name], mask) for name, mask in masks.items())
        assert audit_masks(made.model, masks).revived == 0


def test_removed_it_frees_the_weights(tmp_path):
    callback = TworeCallback(ratio=RATIO)
    made = quiet(trainer("bert", tmp_path, callback, max_steps=3))
    made.train()
    assert audit_masks(made.model, callback.masks).revived == 0
    made.remove_callback(callback)
    made.train()
    assert audit_masks(made.model, callback.masks).revived > 1000


class RemoveAt(TrainerCallback):
    def __init__(self, other, step):
        self.other, self.step, self.trainer = other, step, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.trainer.remove_callback(self.other)


def test_removed_in_the_middle_it_frees_the_weights_at_once(tmp_path):
    callback = TworeCallback(ratio=RATIO)
    remover = RemoveAt(callback, 2)
    made = quiet(trainer("bert", tmp_path, callback, remover, max_steps=4))
    remover.trainer = made
    made.train()
    assert audit_masks(made.model, callback.masks).revived > 1000


def test_after_a_failed_training_release_leaves_the_model_as_it_was(tmp_path):
    class Fails(TrainerCallback):
        def on_substep_end(self, args, state, control, **kwargs):
            raise RuntimeError("on purpose")

    callback = TworeCallback(ratio=RATIO)
    made = quiet(trainer("bert", tmp_path, callback, Fails()))
    with pytest.raises(RuntimeError, match="on purpose"):
        made.train()
    callback.release()
    assert not any(p._backward_hooks for p in made.model.parameters())


def test_trained_again_the_same_weights_stay_removed(tmp_path):
    callback = TworeCallback(ratio=RATIO)
    made = quiet(trainer("bert", tmp_path, callback, max_steps=3))
    made.train()
    first = callback.masks
    with torch.no_grad():  # zeros that were not removed: no longer to be told from the others by magnitude
        for name, weight in prunable_weights(made.model).items():
            weight[first[name]] = 0.0
    made.train()
    assert all(torch.equal(callback.masks[name], mask) for name, mask in first.items())


def test_clipping_is_by_the_norm_of_what_is_left(tmp_path):
    """One clipped step of SGD over all rows is the step of a plain loop that zeroes removed gradients first."""
    model = build("bert")
    for p in model.parameters():
        p.requires_grad_(p.ndim == 2)
    model.eval()  # no dropout
    plain, naive, masks = copy.deepcopy(model), copy.deepcopy(model), masks_of(model)
    data = {key: torch.stack([row[key] for row in rows("bert")]) for key in ("input_ids", "labels")}
    for network, clean in ((plain, True), (naive, False)):
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
        handle = hold_masks(network, masks, optimizer)
        network(**data).loss.backward()
        if clean:
            handle.zero_gradients()
        nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
        optimizer.step()

    made = quiet(
        trainer(
            "bert", tmp_path, TworeCallback(masks=masks), max_steps=1, max_grad_norm=1e-3, logging_steps=1,
            per_device_train_batch_size=12,
        )
    )  # fmt: skip
    made.model.load_state_dict(model.state_dict())
    for theirs, ours in zip(made.model.parameters(), model.parameters(), strict=True):
        theirs.requires_grad_(ours.requires_grad)
    for module in made.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    made.model.bert.config.attention_probs_dropout_prob = 0.0
    made.optimizer = torch.optim.SGD([p for p in made.model.parameters() if p.requires_grad], lr=1.0)
    made.create_scheduler = lambda *a, **k: setattr(
        made, "lr_scheduler", torch.optim.lr_scheduler.ConstantLR(made.optimizer, factor=1.0)
    )
    made.train()
    name = "classifier.weight"
    found, wanted, wrong = (dict(network.named_parameters())[name].detach() for network in (made.model, plain, naive))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    start = dict(model.named_parameters())[name].detach() * masks[name]
    assert float((wrong - start).norm()) < 0.95 * float((found - start).norm())


@pytest.mark.parametrize("bound", [True, False])
def test_metrics_are_logged_beside_the_loss(bound, tmp_path):
    names = ("random_distance", "stable_rank", "powerlaw_alpha")
    callback = TworeCallback(ratio=RATIO, metrics=names, metrics_every=4)
    made = quiet(trainer("bert", tmp_path, *(() if bound else (callback,)), max_steps=10, logging_steps=2))
    if bound:
        assert callback.bind(made) is callback
        assert callback.bind(made) and made.callback_handler.callbacks.count(callback) == 1
    heard = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            heard.append((state.global_step, dict(logs)))

    made.callback_handler.callbacks.insert(0, Reporter())  # as the reporting integrations stand: before one's own
    made.train()
    history = made.state.log_history
    measured = [entry for entry in history if "random_distance" in entry]
    assert [entry["step"] for entry in measured] == [0, 4, 8]
    assert all(math.isfinite(entry[name]) for entry in measured for name in (*names, "random_distance_stderr"))
    assert [entry["density"] for entry in measured] == pytest.approx([1 - RATIO] * 3, abs=0.01)
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4, 6, 8, 10]  # none was lost
    assert [step for step, logs in heard if "stable_rank" in logs] == ([0, 4, 8] if bound else [])
    last = [entry for entry in measured if entry["step"] == 8][0]
    assert last["epoch"] == pytest.approx(8 / 6)


def test_metrics_are_those_of_the_weights_and_change_nothing(tmp_path):
    plain = quiet(trainer("bert", tmp_path, max_steps=4))
    plain.train()
    callback = TworeCallback(metrics_every=4)
    made = quiet(trainer("bert", tmp_path, callback, max_steps=4))
    made.train()
    last = [entry for entry in made.state.log_history if "random_distance" in entry][-1]
    assert last["random_distance"] == random_distance(made.model).value
    assert last["stable_rank"] == stable_rank(made.model) and "density" not in last
    theirs = plain.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in made.model.state_dict().items())
    with pytest.raises(ValueError, match="no masks yet"):
        _ = callback.masks


@pytest.mark.parametrize(("when", "step"), [(7, 7), ("2 epochs", 12), ("0.5 epochs", 3), ("1 epoch", 6)])
def test_it_stops_there_and_saves_there(when, step, tmp_path):
    callback = TworeCallback(ratio=RATIO, stop_at=when, save_at=[2, when])
    made = quiet(trainer("bert", tmp_path, callback))  # 24 examples, 4 an update: 6 updates an epoch
    made.train()
    assert made.state.global_step == step
    assert sorted(folder.name for folder in tmp_path.glob("checkpoint-*")) == sorted(
        [f"checkpoint-{step}", "checkpoint-2"]
    )
    assert audit_masks(made.model, load_masks(tmp_path / f"checkpoint-{step}" / MASKS_FILE)).revived == 0


@pytest.mark.parametrize("given", ["ratio", "masks"])
def test_a_resumed_training_has_its_masks(given, tmp_path):
    """Stopped at 6 and resumed: the same masks and the same weights as without the break."""
    masks = masks_of(build("bert", seed=5))
    options = {"ratio": RATIO} if given == "ratio" else {"masks": masks}
    through = quiet(trainer("bert", tmp_path / "a", TworeCallback(**options), max_steps=12))
    through.train()
    broken = quiet(trainer("bert", tmp_path / "b", TworeCallback(**options, stop_at=6, save_at=6), max_steps=12))
    broken.train()
    callback = TworeCallback(**options, save_at=[6, 8])
    witness = Witness(callback)
    resumed = quiet(trainer("bert", tmp_path / "b", callback, witness, max_steps=12, seed=7))
    resumed.train(resume_from_checkpoint=True)
    assert witness.revived == [0] * 6
    first = load_masks(tmp_path / "b" / "checkpoint-6" / MASKS_FILE)
    assert all(torch.equal(callback.masks[name], mask) for name, mask in first.items())
    assert (tmp_path / "b" / "checkpoint-8").is_dir()
    theirs = through.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)


def test_resuming_needs_the_masks_of_the_checkpoint(tmp_path):
    quiet(trainer("bert", tmp_path, TworeCallback(ratio=RATIO, stop_at=3, save_at=3))).train()
    other = TworeCallback(masks=masks_of(build("bert", seed=5)))
    with pytest.raises(ValueError, match="weights that the masks remove"):
        quiet(trainer("bert", tmp_path, other)).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="has stopped already"):
        again = TworeCallback(ratio=RATIO, stop_at=3)
        quiet(trainer("bert", tmp_path, again)).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="another ratio, kinds or exclude"):
        quiet(trainer("bert", tmp_path, TworeCallback(ratio=0.5))).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-3" / MASKS_FILE).unlink()
    with pytest.raises(ValueError, match="there is no .*checkpoint-3.*pass masks="):
        quiet(trainer("bert", tmp_path, TworeCallback(ratio=RATIO))).train(resume_from_checkpoint=True)


def test_bf16_autocast(tmp_path):
    callback = TworeCallback(ratio=RATIO)
    witness = Witness(callback)
    quiet(trainer("bert", tmp_path, callback, witness, bf16=True, max_steps=5)).train()
    assert witness.revived == [0] * 5


@pytest.mark.slow
def test_compiled_models(tmp_path):
    callback = TworeCallback(ratio=RATIO)
    made = quiet(
        trainer("bert", tmp_path, callback, max_steps=3, torch_compile=True, torch_compile_backend="aot_eager")
    )
    made.train()
    network = build("bert")
    network.load_state_dict(made.model.state_dict())
    assert audit_masks(network, callback.masks).revived == 0  # by the names of the model inside
    assert not torch.equal(network.classifier.weight, build("bert").classifier.weight)


def test_wrappers_are_taken_off():
    model = nn.Sequential(nn.Linear(2, 2))
    assert unwrapped(nn.DataParallel(torch.compile(model, backend="eager"))) is model
    assert unwrapped(torch.compile(nn.DataParallel(model), backend="eager")) is model
    assert unwrapped(model) is model


def test_something_that_writes_to_removed_weights_is_found(tmp_path):
    class Writes(TrainerCallback):
        def on_step_end(self, args, state, control, *, model=None, **kwargs):
            with torch.no_grad():
                model.classifier.weight.add_(1.0)

    made = quiet(trainer("bert", tmp_path, TworeCallback(ratio=RATIO), Writes(), max_steps=2))
    with pytest.raises(RuntimeError, match=r"removed weights are not zero, in classifier\.weight"):
        made.train()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to do"),
        ({"ratio": 1.0}, r"in \[0, 1\)"),
        ({"ratio": 0.5, "masks": "masks.safetensors"}, "leave out ratio"),
        ({"masks": {}}, "masks is empty"),
        ({"ratio": 0.5, "metrics": "randm_distance"}, "did you mean 'random_distance'"),
        ({"metrics_every": 0}, "metrics_every is a number of updates"),
        ({"stop_at": 0}, "stop_at is an update, such as 500"),
        ({"stop_at": 2.0}, "'2 epochs'"),
        ({"save_at": "two epochs"}, "save_at is an update"),
        ({"save_at": [5, "0 epochs"]}, "save_at is an update"),
    ],
)
def test_wrong_options_are_one_sentence(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        TworeCallback(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "arguments", "words"),
    [
        ("gpt2", {"ratio": 0.5}, {}, "exclude='lm_head.weight'"),
        ("bert", {"ratio": 0.5, "exclude": "nothing"}, {}, "matches no parameter"),
        ("bert", {"masks": {"x": torch.ones(1).bool()}}, {}, "without a weight of that name"),
        ("bert", {"masks": "nowhere.safetensors"}, {}, "no mask file"),
        ("bert", {"stop_at": 51}, {}, "stop_at is step 51, but training ends at step 50"),
        ("bert", {"save_at": "10 epochs"}, {}, "save_at is epoch 10"),
        ("bert", {"metrics_every": 5}, {"report_to": ["tensorboard"]}, r"call callback\.bind\(trainer\)"),
    ],
)
def test_what_does_not_fit_is_said_when_training_begins(name, options, arguments, words, tmp_path):
    made = quiet(trainer(name, tmp_path, TworeCallback(**options), **arguments))
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        made.train()
    assert "\n" not in str(caught.value)
