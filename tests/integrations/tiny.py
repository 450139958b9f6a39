"""Tiny models of four families, built locally, with data to fine-tune them on for a few updates by the Trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from twore.pruning import audit_masks

logging.disable_progress_bar()
logging.set_verbosity_error()

VOCABULARY, LENGTH, EXAMPLES = 40, 6, 24


@dataclass(frozen=True)
class Family:
    """How to make a model, what to leave out when pruning it, and who trains it."""

    build: Callable[[], PreTrainedModel]
    exclude: str | None
    sequence_to_sequence: bool = False


def bert() -> BertForSequenceClassification:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=16, **sizes))


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=1, n_head=2))


def marian() -> MarianMTModel:
    return MarianMTModel(
        MarianConfig(
            vocab_size=VOCABULARY, decoder_vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            share_encoder_decoder_embeddings=False, tie_word_embeddings=False, max_position_embeddings=16,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
        )
    )  # fmt: skip


def t5() -> T5ForConditionalGeneration:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes))


FAMILIES = {
    "bert": Family(bert, None),
    "gpt2": Family(gpt2, "lm_head"),  # tied to the embedding
    "marian": Family(marian, None, sequence_to_sequence=True),
    "t5": Family(t5, "lm_head", sequence_to_sequence=True),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return FAMILIES[name].build()


def rows(name: str) -> list[dict[str, Tensor]]:
    """Random tokens; the labels are a class for BERT and the tokens themselves for the others."""
    tokens = torch.randint(3, VOCABULARY, (EXAMPLES, LENGTH), generator=torch.Generator().manual_seed(0))
    labels = tokens[:, 0] % 2 if name == "bert" else tokens
    return [{"input_ids": x, "labels": y} for x, y in zip(tokens, labels, strict=True)]


def trainer(
    name: str, out: Path, *callbacks: TrainerCallback, seed: int = 0, model: PreTrainedModel | None = None,
    **arguments: Any,
) -> Trainer:  # fmt: skip
    """A Trainer with what is said to revive zeros: AdamW, weight decay, accumulation, clipping."""
    two = FAMILIES[name].sequence_to_sequence
    make, kind = (Seq2SeqTrainer, Seq2SeqTrainingArguments) if two else (Trainer, TrainingArguments)
    usual = {
        "max_steps": 50, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
        "weight_decay": 0.1, "max_grad_norm": 1.0, "logging_steps": 10, "save_strategy": "no", "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    options = kind(output_dir=str(out), **(usual | arguments))
    data = {"train_dataset": rows(name), "eval_dataset": rows(name)}  # evaluated only where arguments ask for it
    return make(model=model or build(name, seed), args=options, callbacks=list(callbacks), **data)


class Witness(TrainerCallback):
    """Counts the removed weights that are not zero at the end of every update, as later callbacks see them."""

    def __init__(self, holder: Any) -> None:
        self.holder, self.revived = holder, []

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any = None, **kwargs: Any) -> None:
        self.revived.append(audit_masks(model, self.holder.masks).revived)
