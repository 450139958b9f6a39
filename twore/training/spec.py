"""What one training run is: epochs, batch, optimiser, schedule. Dense training and fine-tuning use the same words.

The report's values (section 6.1) are REPORT_DENSE, REPORT_FINETUNE; ICML_FINETUNE is what the authors' later published
grid used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "inverse_sqrt")
CLOCKS = ("restart", "continue")


@dataclass(frozen=True)
class Training:
    """One training run, dense or fine-tuning. Every field is part of a result's identity."""

    epochs: int = 160
    """Passes over the training data."""
    batch_size: int = 64
    """Examples in a batch (images), or padded tokens a side (translation)."""
    optimizer: str = "sgd"
    """sgd, adam or adamw."""
    lr: float = 0.1
    """Learning rate; with inverse_sqrt a factor on min(update**-0.5, update * warmup**-1.5)."""
    momentum: float = 0.9
    """SGD momentum."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates."""
    eps: float = 1e-9
    """Adam's epsilon."""
    weight_decay: float = 1e-4
    """L2 penalty (sgd, adam) or decoupled decay (adamw)."""
    schedule: str = "step"
    """constant; step: times drop_factor at each epoch of drops; inverse_sqrt: linear warm-up, then update**-0.5."""
    drops: tuple[int, ...] = (80, 120)
    """Completed epochs after which the rate drops: 80 means epochs 81, 82, ... run at the lower rate."""
    drop_factor: float = 0.1
    """Factor at each drop."""
    warmup: int = 4000
    """Updates of linear warm-up (inverse_sqrt only)."""
    clip: float | None = None
    """Bound on the gradient's norm; none means no clipping."""
    accumulate: int = 1
    """Batches whose gradients are summed before an update."""
    ema: float = field(default=0.0, metadata={"since": "0.1.0"})
    """Horizon, in epochs, of a moving average of the weights that is kept beside each checkpoint; 0 keeps none."""

    clock: str = field(default="restart", metadata={"since": "0.1.0"})
    """Fine-tuning's schedule: restart (from its beginning), or continue (from where the checkpoint stands)."""

    share: float = field(default=1.0, metadata={"since": "0.1.0"})
    """Fine-tuning: part of the batches that each epoch uses, in (0, 1]; below 1 for short pilots."""

    def __post_init__(self) -> None:
        _require(self.clock in CLOCKS, f"clock is one of {', '.join(CLOCKS)}: got {self.clock!r}")
        _require(self.epochs >= 0, f"epochs is 0 or more: got {self.epochs}")
        _require(self.batch_size >= 1, f"batch_size is at least 1: got {self.batch_size}")
        _require(self.optimizer in OPTIMIZERS, f"optimizer is one of {', '.join(OPTIMIZERS)}: got {self.optimizer!r}")
        _require(self.schedule in SCHEDULES, f"schedule is one of {', '.join(SCHEDULES)}: got {self.schedule!r}")
        _require(self.lr >= 0 and math.isfinite(self.lr), f"lr is a finite number, 0 or more: got {self.lr}")
        _require(0 <= self.momentum < 1, f"momentum is in [0, 1): got {self.momentum}")
        _require(self.weight_decay >= 0, f"weight_decay is 0 or more: got {self.weight_decay}")
        _require(self.accumulate >= 1, f"accumulate is at least 1: got {self.accumulate}")
        _require(0 < self.drop_factor <= 1, f"drop_factor is in (0, 1]: got {self.drop_factor}")
        _require(self.warmup >= 1, f"warmup is at least 1 update: got {self.warmup}")
        _require(all(0 <= beta < 1 for beta in self.betas), f"betas are in [0, 1): got {self.betas}")
        _require(self.eps > 0, f"eps is above 0: got {self.eps}")
        _require(self.ema >= 0, f"ema is a horizon in epochs, 0 or more: got {self.ema}")
        _require(self.clip is None or self.clip > 0, f"clip is positive, or none: got {self.clip}")
        _require(0 < self.share <= 1, f"share is the part of an epoch that is used, in (0, 1]: got {self.share}")
        _require(list(self.drops) == sorted(set(self.drops)), f"drops are epochs in rising order: got {self.drops}")

    def batches_of(self, whole: int) -> int:
        """Batches that an epoch uses, of `whole` that it has: rounded down, so that no more than the share is spent,
        but at least one."""
        return max(1, int(self.share * whole + 1e-9)) if self.share < 1 else whole

    def lr_at(self, epoch: int, update: int) -> float:
        """The learning rate of the update number `update` (0-based, over the whole run) in `epoch` (0-based)."""
        if self.schedule == "step":
            return self.lr * self.drop_factor ** sum(epoch >= drop for drop in self.drops)
        if self.schedule == "inverse_sqrt":  # Vaswani et al. 2017, eq. 3, without the d_model factor
            step = update + 1
            return self.lr * min(step**-0.5, step * self.warmup**-1.5)
        return self.lr


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


REPORT_DENSE = Training()  # section 6.1, vision
REPORT_FINETUNE = Training(epochs=40, lr=1e-3, schedule="constant", drops=())
ICML_FINETUNE = Training(epochs=160, lr=0.1, schedule="step", drops=(80, 120))

# Section 6.1, translation: the schedule of Vaswani et al. 2017, d_model 512. Fine-tuning restarts it: the optimiser's
# state is fresh, so it needs the warm-up, and all checkpoints are fine-tuned alike, which `continue` would not do.
WMT14_DENSE = Training(
    epochs=19, batch_size=1_500, optimizer="adam", lr=512**-0.5, weight_decay=0.0, schedule="inverse_sqrt", drops=()
)
WMT14_FINETUNE = replace(WMT14_DENSE, epochs=5)
