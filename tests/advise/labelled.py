"""The toy task with labels, so that pruned checkpoints are scored before fine-tuning; and a small study of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from toy import CPU, ToyData, ToyTask

from twore.study import Study
from twore.training import Training

RATIOS = (0.3, 0.6, 0.8)


@dataclass(frozen=True)
class LabelledTask(ToyTask):
    hidden: int = 12
    norm: bool = True

    def load(self, folder: Path | None, device: torch.device) -> LabelledData:
        return LabelledData(self, device)

    def build(self) -> nn.Module:
        model = super().build()
        return model if self.norm else nn.Sequential(model[0], model[2], model[3])


class LabelledData(ToyData):
    def targets(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[1]


def labelled_study(task: ToyTask | None = None) -> Study:
    dense = Training(epochs=6, batch_size=16, lr=0.2, drops=(4,))
    return Study(
        task=task or LabelledTask(), name="toy", dense=dense, numerics=CPU,
        finetune=replace(dense, epochs=1, lr=0.05, schedule="constant", drops=()),
        checkpoints=(1, 2, 3, 4, 6), extra_checkpoints=(0,), ratios=RATIOS, finetune_seeds=(0, 1),
        data_fingerprint="toy-48",
    )  # fmt: skip


def stored(study: Study, out: Path) -> Path:
    """The folder of a study's dense checkpoints: epoch-0001.safetensors, ..."""
    return out / "store" / "trajectories" / study.trajectories[0].key
