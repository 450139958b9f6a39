from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toy import CPU, ToyTask

from twore.pruning import audit_masks
from twore.pruning.spec import Pruning
from twore.tasks import CifarTask
from twore.training import DivergedError, Pruner, Run, Training, loop, make_average, train

SPEC = Training(epochs=4, batch_size=20, lr=0.05, drops=(2,))


def make_run(spec=SPEC, *, task=None, **changes):
    task = task or ToyTask()
    torch.manual_seed(0)
    return Run(task.build(), task.load(None, torch.device("cpu")), spec, "dense", 0, CPU, **changes)


plain_run = make_run


def weights(run):
    return copy.deepcopy(run.model.state_dict())


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_equals_a_plain_loop():
    """The loop is SGD on the batch mean of the loss: checked against the obvious code."""
    run = make_run(replace(SPEC, epochs=1))
    model = copy.deepcopy(run.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for x, y in run.data.epoch(20, loop.derive_seed("dense", 0, "order", 0)):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    train(run)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], tensor)


def test_records():
    seen = []
    records = train(make_run(), after_epoch=lambda record: seen.append(record.epoch) or {"score": float(record.epoch)})
    assert seen == [1, 2, 3, 4] == [record.epoch for record in records]
    assert [record.update for record in records] == [3, 6, 9, 12]  # 48 examples in batches of 20: the last one of 8
    assert [record.lr for record in records] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    assert records[2].scores == {"score": 3.0}
    assert records[-1].train_loss < records[0].train_loss


def test_a_share_of_each_epoch_is_its_first_batches():
    seen = []
    run = make_run(replace(SPEC, share=0.99))
    whole = run.data.loss
    run.data.loss = lambda model, batch: seen.append(batch[1]) or whole(model, batch)
    assert [record.update for record in train(run)] == [2, 4, 6, 8]  # of 3 batches, rounded down
    first = [y for _, y in run.data.epoch(20, loop.derive_seed("dense", 0, "order", 0))][:2]
    assert all(torch.equal(a, b) for a, b in zip(seen, first))


def test_training_loss_is_the_mean_over_examples_not_over_batches():
    """With rate 0 and no BatchNorm the loss of an epoch is the mean over all 48 examples, whatever the batches."""
    spec = replace(SPEC, lr=0.0, epochs=1, momentum=0.0)
    losses = []
    for size in (20, 48):
        run = make_run(replace(spec, batch_size=size))
        run.model[1] = torch.nn.Identity()
        losses.append(train(run)[0].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_same_seed_same_weights_other_seed_others():
    a, b, c = make_run(), make_run(), make_run()
    c = replace(c, seed=1)
    for run in (a, b, c):
        train(run)
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


DIGITS = CifarTask(dataset="digits", depth=8, width=8, data_percent=20.0, crop_padding=1)  # convolutions, channels last


@pytest.mark.parametrize("schedule", [None, "one_shot", "iterative", "gradual"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("task", [ToyTask(), DIGITS], ids=["toy", "digits"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, optimizer, task, schedule):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    spec = replace(SPEC, optimizer=optimizer, lr=0.01)

    def make_run(spec):
        run = plain_run(spec, task=task)
        holder = None if schedule is None else Pruner(run.model, Pruning(schedule=schedule), 0.8)
        return replace(run, holder=holder)

    whole = make_run(spec)
    records = train(whole)

    class Killed(Exception):  # noqa: N818
        pass

    def stop(record):
        if record.epoch == 3:
            raise Killed
        return {}

    state = tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        train(make_run(spec), after_epoch=stop, state=state)
    resumed = make_run(spec)
    seen = []
    again = train(resumed, after_epoch=lambda record: seen.append(record.epoch) or {}, state=state)
    assert seen == [3, 4]  # two epochs were kept
    assert same(weights(whole), weights(resumed))
    assert [r.train_loss for r in again] == [r.train_loss for r in records]
    if schedule is not None:
        assert same(whole.holder.masks, resumed.holder.masks)
        assert audit_masks(resumed.model, resumed.holder.masks).revived == 0


def test_the_moving_average_by_hand_and_resumed(tmp_path, monkeypatch):
    """After each update: average += (weights - average) / (horizon in updates); the same when resumed."""
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    name, spec = "0.weight", replace(SPEC, ema=2.0, batch_size=48)  # one update an epoch: a horizon of two updates
    whole, resumed = make_run(spec), make_run(spec)
    whole = replace(whole, average=make_average(whole.model, spec, whole.data))
    seen = [whole.model.state_dict()[name].clone()]
    train(whole, after_epoch=lambda _: seen.append(whole.model.state_dict()[name].clone()) or {})
    by_hand = seen[1]  # the first update copies
    for value in seen[2:]:
        by_hand = by_hand + (value - by_hand) / 2
    torch.testing.assert_close(whole.average.module.state_dict()[name], by_hand)

    def stop(record):
        if record.epoch == 3:
            raise KeyboardInterrupt
        return {}

    state = tmp_path / "state.safetensors"
    broken = make_run(spec)
    with pytest.raises(KeyboardInterrupt):
        train(replace(broken, average=make_average(broken.model, spec, broken.data)), after_epoch=stop, state=state)
    resumed = replace(resumed, average=make_average(resumed.model, spec, resumed.data))
    train(resumed, state=state)
    assert same(whole.average.state_dict(), resumed.average.state_dict())


def test_a_broken_state_starts_over(tmp_path):
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"half a file")
    run, fresh = make_run(), make_run()
    assert len(train(run, state=state)) == 4
    train(fresh)
    assert same(weights(run), weights(fresh))


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(DivergedError, match="epoch 1"):
        train(make_run(task=ToyTask(poison=8)))


def test_accumulation_is_a_larger_batch():
    """Without BatchNorm, 2 batches of 12 summed are one batch of 24."""
    runs = [make_run(replace(SPEC, batch_size=12, accumulate=2)), make_run(replace(SPEC, batch_size=24))]
    for run in runs:
        run.model[1] = torch.nn.Identity()
        train(run)
    a, b = (weights(run) for run in runs)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_clipping_bounds_the_update():
    run = make_run(replace(SPEC, epochs=1, batch_size=48, clip=1e-3, momentum=0.0, weight_decay=0.0, lr=1.0))
    before = weights(run)
    train(run)
    after = dict(run.model.named_parameters())
    moved = math.sqrt(sum(float((after[n].detach() - before[n]).square().sum()) for n in after))
    assert moved == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["one_shot", "iterative", "gradual"])
def test_masks_hold_through_a_run_and_reach_the_ratio(optimizer, schedule):
    run = make_run(replace(SPEC, optimizer=optimizer, lr=0.01, weight_decay=0.1))
    pruner = Pruner(run.model, Pruning(kinds=("linear",), schedule=schedule, rounds=3), 0.75)
    first = sum(int((~mask).sum()) for mask in pruner.masks.values())
    train(replace(run, holder=pruner))
    audit = audit_masks(run.model, pruner.masks)
    assert audit.revived == 0
    assert audit.size - audit.kept == round(0.75 * 80) + round(0.75 * 24)
    assert (first == audit.size - audit.kept) is (schedule == "one_shot")


def test_clipping_sees_the_gradients_of_the_kept_weights_only():
    """At rate 1 without momentum an update is the clipped gradient: its norm over kept weights is the bound."""
    spec = replace(SPEC, epochs=1, batch_size=48, clip=1e-3, momentum=0.0, weight_decay=0.0, lr=1.0)
    run = make_run(spec)
    run = replace(run, holder=Pruner(run.model, Pruning(), 0.9))
    before = weights(run)
    train(run)
    after = dict(run.model.named_parameters())
    moved = math.sqrt(sum(float((after[n].detach() - before[n]).square().sum()) for n in after))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_an_empty_training_set_is_said():
    with pytest.raises(ValueError, match="empty"):
        train(make_run(task=ToyTask(examples=0)))


def test_zero_epochs_do_nothing():
    run = make_run(replace(SPEC, epochs=0))
    before = weights(run)
    assert train(run) == []
    assert same(before, weights(run))


def test_a_schedule_that_goes_on_uses_later_rates():
    spec = Training(epochs=1, batch_size=48, schedule="inverse_sqrt", lr=0.1, warmup=4, drops=())
    rates = [train(make_run(spec, began=began))[0].lr for began in ((0, 0), (3, 15))]
    assert rates == pytest.approx([0.0125, 0.025])  # Vaswani et al. eq. 3 at steps 1 and 16
