"""Tiny models of the transformers library, built from configs, with inputs that they take."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import transformers as hf
from torch import Tensor
from transformers.utils import logging

logging.disable_progress_bar()
NAMES = ("t5", "bert", "gpt2", "marian", "vit")
HEADS = {"t5": "lm_head", "bert": "cls.predictions.decoder", "gpt2": "lm_head", "marian": "lm_head"}  # tied ones


def build(name: str, dtype: torch.dtype = torch.float32) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    model = {"t5": t5, "bert": bert, "gpt2": gpt2, "marian": marian, "vit": vit}[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # a fixed table of positions is not stored
                parameter.add_(torch.randn_like(parameter) * 0.1)  # no zeros, no ones
    return model.to(dtype).eval()


def t5() -> hf.PreTrainedModel:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


def bert() -> hf.PreTrainedModel:
    return hf.BertForMaskedLM(
        hf.BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16,
        )
    )  # fmt: skip


def gpt2() -> hf.PreTrainedModel:
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def marian() -> hf.PreTrainedModel:
    return hf.MarianMTModel(
        hf.MarianConfig(
            vocab_size=40, decoder_vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            max_position_embeddings=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=0,
            forced_eos_token_id=None,
        )
    )  # fmt: skip


def vit() -> hf.PreTrainedModel:
    return hf.ViTForImageClassification(
        hf.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8,
            patch_size=4, num_labels=3,
        )
    )  # fmt: skip


@torch.no_grad()
def logits(name: str, model: hf.PreTrainedModel) -> Tensor:
    tokens = torch.arange(3, 11).reshape(2, 4)
    inputs = (
        {"pixel_values": torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)} if name == "vit" else {"input_ids": tokens}
    )
    if name in ("t5", "marian"):
        inputs["decoder_input_ids"] = tokens
    if name == "vit":
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return model.eval()(**inputs).logits


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
