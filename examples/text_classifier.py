# text_classifier.py: when should this small BERT stop training before it is pruned?
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import torch
from transformers import BertConfig, BertForSequenceClassification

from twore.study import Study, run_study
from twore.tasks.simple import labelled_data, split_rows
from twore.training import Training

VOCABULARY = """food room staff view bar pool price music  so very not hardly
    good fine great lovely fresh kind clean warm  bad poor awful stale rude dirty cold bland"""
WORDS = VOCABULARY.split()


@dataclass(frozen=True)
class Reviews:
    score_label: ClassVar[str] = "test accuracy (%)"
    setting_fields: ClassVar[tuple[str, ...]] = ("width",)
    width: int = 32

    def known_fingerprint(self):
        return None  # taken from the data

    def load(self, folder, device):  # your texts, and what your tokenizer makes of them
        texts = product(WORDS[:8], WORDS[8:12], WORDS[12:])  # "staff not kind"
        ids = torch.tensor([[WORDS.index(word) for word in text] for text in texts])
        is_praise = (ids[:, 2] < 20) ^ (ids[:, 1] >= 10)
        train, valid, test = split_rows(({"input_ids": ids}, is_praise.long()), valid=0.1, test=0.4)
        return labelled_data(train, test, valid=valid, device=device)

    def build(self):
        sizes = {"hidden_size": self.width, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        return BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), initializer_range=0.1, **sizes))


def study():
    dense = Training(epochs=16, batch_size=16, optimizer="adamw", lr=1e-3, schedule="constant", drops=())
    fine = replace(dense, epochs=2)
    return Study(task=Reviews(), dense=dense, finetune=fine, checkpoints=(2, 4, 8, 16), ratios=(0.3, 0.7, 0.9))


if __name__ == "__main__":
    from text_classifier import study  # under this name study.yaml, and so `twore run`, finds the task

    print(run_study(study(), "runs/reviews", workers=2).cells[["epoch", "ratio", "finetune_seed", "score"]])
