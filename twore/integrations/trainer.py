"""TworeCallback: keep a pruned model pruned while the Hugging Face Trainer (or Seq2SeqTrainer) fine-tunes it.

    callback = TworeCallback(ratio=0.9, exclude="lm_head", metrics_every=100).bind(trainer)
    trainer.train()
    save_masks("pruned/masks.safetensors", callback.masks)

Zeros are exact after every update, whatever the optimiser does (momentum, decoupled weight decay), with gradient
accumulation, clipping (the norm is that of the weights that are left), mixed precision, torch.compile, and several
processes (DDP; the masks are those of process 0). Every checkpoint of the Trainer gets its masks beside it
(`MASKS_FILE`), and a run resumed from it goes on with them; not with hyper-parameter search, which has folders of its
own. FSDP and DeepSpeed split weights over processes and are refused.

How metrics get out: a callback is told of logs but cannot send any, so `bind` gives it the Trainer whose `log` reaches
everything in `report_to`, the console and `state.log_history`. Without `bind` they go to `state.log_history`, and so to
trainer_state.json, only; when the Trainer reports elsewhere too, that is refused.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from twore.integrations.hold import Hold, from_first_process, unwrapped
from twore.integrations.moments import Moment, moment
from twore.metrics import metrics_taking
from twore.pruning import audit_masks, load_masks, make_masks, prunable_weights, save_masks
from twore.pruning.choices import unknown
from twore.pruning.masks import check_ratio

if TYPE_CHECKING:
    from transformers import Trainer

MASKS_FILE = "masks.safetensors"  # beside the model in every checkpoint folder
DEFAULT_METRICS = ("random_distance", "stable_rank")


class TworeCallback(TrainerCallback):
    """Holds masks, logs weights-only metrics, saves and stops at given moments; each only when asked for.

    masks: name -> bool tensor (True = kept), or the path of a file of `save_masks`; or
    ratio: prune to this ratio when training begins: make_masks(prunable_weights(model, kinds, exclude=exclude), ratio).
        For other scores and allocations make the masks yourself.
    metrics: names in METRICS that take weights; metrics_every: updates between two measurements (and one before the
        first update), or None. They are logged under their names, random_distance with its standard error.
    save_at, stop_at: an update (500) or epochs in words ("2 epochs"); save_at may be several. Training stops after
        that update; name it in both to have a checkpoint of where it stopped.

    Raises ValueError for what cannot be known only later when training begins: names and shapes that do not fit.
    """

    def __init__(
        self,
        *,
        masks: Mapping[str, Tensor] | str | os.PathLike[str] | None = None,
        ratio: float | None = None,
        kinds: str | Sequence[str] = ("conv", "linear"),
        exclude: str | Sequence[str] | None = None,
        metrics: Iterable[str] = DEFAULT_METRICS,
        metrics_every: int | None = None,
        save_at: int | str | Sequence[int | str] = (),
        stop_at: int | str | None = None,
    ) -> None:
        if masks is not None and (ratio is not None or exclude is not None):
            raise ValueError("masks say what is pruned: leave out ratio and exclude, which are for making them")
        if masks is None and ratio is None and metrics_every is None and save_at == () and stop_at is None:
            raise ValueError("nothing to do: give masks or ratio, metrics_every, save_at or stop_at")
        if isinstance(masks, Mapping) and not masks:
            raise ValueError("masks is empty: make_masks(prunable_weights(model), ratio) makes some")
        if metrics_every is not None and not (isinstance(metrics_every, int) and metrics_every > 0):
            raise ValueError(f"metrics_every is a number of updates, 1 or more: got {metrics_every!r}")
        self.ratio = None if ratio is None else check_ratio(ratio)
        self.metrics = _checked_metrics(metrics)
        self.metrics_every = metrics_every
        several = [save_at] if isinstance(save_at, (int, str)) else list(save_at)
        self.save_at = [moment("save_at", value) for value in several]
        self.stop_at = None if stop_at is None else moment("stop_at", stop_at)
        self._given, self._kinds, self._exclude = masks, kinds, exclude
        self._trainer: Trainer | None = None
        self._hold: Hold | None = None
        self._masks: dict[str, Tensor] | None = None
        self._made_for: weakref.ref[nn.Module] | None = None
        self._to_save: list[Moment] = []

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks that are, or were last, held: name -> bool tensor. ValueError before training has begun."""
        if self._masks is None:
            raise ValueError("there are no masks yet: they are made or read when training begins")
        return dict(self._masks)

    def bind(self, trainer: Trainer) -> TworeCallback:
        """Log through this Trainer, and become one of its callbacks where it is not yet. Returns the callback."""
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    def release(self) -> None:
        """Stop holding; the weights stay as they are. Done when training ends; call it after one that failed."""
        if self._hold is not None:
            self._hold.free_gradients()
            self._hold = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Prune, and check what could not be checked before."""
        self.release()
        self._check_reporting(args)
        self._plan(state)
        model = unwrapped(model)
        if self._given is not None or self.ratio is not None:
            if args.fsdp or args.deepspeed:
                raise ValueError(
                    "masks hold whole weights, which FSDP and DeepSpeed split over processes: train with DDP"
                )
            self._masks = from_first_process(lambda: self._choose(model, args, state), args.device)
            self._made_for = weakref.ref(model)
            self._hold = Hold(model, self._masks)
        if state.global_step == 0:
            self._measure(model, state, control)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gradients of removed weights do not count from here on."""
        if self._hold is not None:
            self._hold.mask_gradients()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gradients are complete and clipped."""
        if self._hold is not None:
            self._hold.free_gradients()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Zero what the update moved."""
        if self._hold is not None:
            self._hold.zero_weights()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: Any = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Measure, save or stop where it is due."""
        step, epoch = state.global_step, state.epoch or 0.0
        if self.metrics_every is not None and step % self.metrics_every == 0:
            self._measure(unwrapped(model), state, control)
        due = [when for when in self._to_save if when.reached(step, epoch)]
        if due:
            self._to_save = [when for when in self._to_save if when not in due]
            control.should_save = True
        if self.stop_at is not None and self.stop_at.reached(step, epoch):
            control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the masks beside the checkpoint that was just written."""
        if self._hold is None:
            return
        self._hold.check()
        if args.should_save and not state.is_hyper_param_search:
            save_masks(_checkpoint_folder(args, state) / MASKS_FILE, self._hold.masks)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prove that the zeros are there, and let go."""
        if self._hold is not None:
            self._hold.check()
        self.release()

    def _choose(self, model: nn.Module, args: TrainingArguments, state: TrainerState) -> Mapping[str, Tensor]:
        """The masks of this training: given, of the checkpoint it resumes from, made before, or made now."""
        masks, resumed = self._given, state.global_step > 0
        if masks is None and resumed:
            masks = self._of_checkpoint(model, args, state)
        if isinstance(masks, (str, os.PathLike)):
            masks = load_masks(masks)
        if masks is None and self._masks is not None and self._made_for is not None and self._made_for() is model:
            masks = self._masks  # trained again: the same weights stay removed, also among equals
        if masks is None:
            return make_masks(prunable_weights(model, self._kinds, exclude=self._exclude), self.ratio or 0.0)
        if resumed and (audit := audit_masks(model, masks)).revived:
            raise ValueError(
                f"the checkpoint of step {state.global_step} has {audit.revived} weights that the masks remove: "
                "pass the masks it was trained with, or load it with from_pretrained and start a new training"
            )
        return masks

    def _of_checkpoint(self, model: nn.Module, args: TrainingArguments, state: TrainerState) -> dict[str, Tensor]:
        """The masks beside the checkpoint that training resumes from; ValueError where they are not what is asked."""
        file = _checkpoint_folder(args, state) / MASKS_FILE
        if not file.is_file():
            raise ValueError(
                f"training resumes at step {state.global_step} but there is no {file}: "
                f"pass masks= the {MASKS_FILE} of the checkpoint it resumes from"
            )
        masks, ratio = load_masks(file), self.ratio or 0.0
        removed = {name: int(mask.logical_not().sum()) for name, mask in masks.items()}
        weights = prunable_weights(model, self._kinds, exclude=self._exclude)
        if removed != {name: round(ratio * weight.numel()) for name, weight in weights.items()}:
            raise ValueError(
                f"{file} was made with another ratio, kinds or exclude: "
                f"resume with the same, or pass masks={str(file)!r}"
            )
        return masks

    def _plan(self, state: TrainerState) -> None:
        """What is still ahead of this run; ValueError for what never comes."""
        step, epoch = state.global_step, state.epoch or 0.0
        for option, moments in (("save_at", self.save_at), ("stop_at", [self.stop_at] if self.stop_at else [])):
            for when in moments:
                if when.beyond(state.max_steps, state.num_train_epochs):
                    raise ValueError(f"{option} is {when}, but training ends at step {state.max_steps}")
        if self.stop_at is not None and step > 0 and self.stop_at.reached(step, epoch):
            raise ValueError(f"stop_at is {self.stop_at}, but training resumes at step {step}: it has stopped already")
        self._to_save = [when for when in self.save_at if not (step and when.reached(step, epoch))]

    def _check_reporting(self, args: TrainingArguments) -> None:
        if self.metrics_every is not None and self._trainer is None and args.report_to:
            raise ValueError(
                f"a callback alone cannot log to {', '.join(args.report_to)}: "
                "call callback.bind(trainer) once the Trainer is made"
            )

    def _measure(self, model: nn.Module, state: TrainerState, control: TrainerControl) -> None:
        """Log the metrics of the weights as they are; in the first process, while the others wait."""
        if self.metrics_every is None or not state.is_world_process_zero:
            return
        known, values = metrics_taking("weights"), {}
        for name in self.metrics:
            found = known[name].fn(model)
            values[name] = float(found)
            if hasattr(found, "stderr"):
                values[f"{name}_stderr"] = float(found.stderr)
        if self._hold is not None:
            self._hold.check()
            values["density"] = audit_masks(model, self._hold.masks).density
        if self._trainer is None:
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
            return
        asked = control.should_log
        self._trainer.log(values)
        control.should_log = asked  # which logging clears: the Trainer's own log of this step is still to come


def _checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the Trainer keeps the checkpoint of the present step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _checked_metrics(names: Iterable[str]) -> tuple[str, ...]:
    wanted, known = (names,) if isinstance(names, str) else tuple(names), metrics_taking("weights")
    for name in wanted:
        if name not in known:
            raise unknown("metric of weights", name, known)
    return wanted
