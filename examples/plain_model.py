# plain_model.py: the same study on a plain PyTorch model
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import nn

from twore.study import Study, run_study
from twore.tasks.simple import labelled_data, split_rows
from twore.training import Training


class Net(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.BatchNorm2d(2 * channels), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(2 * channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.convolutions(x).mean((2, 3)))  # (B, 1, 8, 8) -> (B, 10)


@dataclass(frozen=True)
class Digits:
    score_label: ClassVar[str] = "test accuracy (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ("channels",)
    channels: int = 12

    def known_fingerprint(self):
        return None

    def load(self, folder, device):
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
        train, valid, test = split_rows((images, torch.tensor(digits.target)), valid=0.1, test=0.3)
        return labelled_data(train, test, valid=valid, device=device)

    def build(self):
        return Net(self.channels)


def study():
    dense = Training(epochs=12, batch_size=32, lr=0.1, drops=(6, 9))
    fine = replace(dense, epochs=2, lr=0.01, schedule="constant", drops=())
    return Study(task=Digits(), dense=dense, finetune=fine, checkpoints=(2, 4, 8, 12), ratios=(0.5, 0.8, 0.95))


if __name__ == "__main__":
    from plain_model import study  # under this name study.yaml, and so `twore run`, finds the task

    print(run_study(study(), "runs/digits", workers=2).cells[["epoch", "ratio", "finetune_seed", "score"]])
