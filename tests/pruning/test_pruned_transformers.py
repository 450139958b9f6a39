"""Models of the transformers library: GPT-2's Conv1D, tied and untied prediction layers, save_pretrained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MarianConfig, MarianMTModel, PreTrainedModel
from transformers.utils import logging

from twore.pruning import apply_masks, audit_masks, hold_masks, load_masks, make_masks, prunable_weights, save_masks

logging.disable_progress_bar()


def marian(*, tied: bool) -> MarianMTModel:
    torch.manual_seed(0)
    return MarianMTModel(
        MarianConfig(
            vocab_size=50, decoder_vocab_size=50, d_model=16, encoder_layers=2, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            share_encoder_decoder_embeddings=tied, tie_word_embeddings=tied, max_position_embeddings=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
        )
    )  # fmt: skip


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2))


def train_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    tokens = torch.randint(3, 40, (2, 8))
    optimizer.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()


def test_untied_marian_is_pruned_in_every_linear_layer_and_no_embedding() -> None:
    model = marian(tied=False)
    weights = prunable_weights(model, kinds=("linear",))
    assert (
        len(weights) == 2 * 6 + 1 * 10 + 1
    )  # q, k, v, out, fc1, fc2; a decoder layer attends twice; the prediction layer
    assert "lm_head.weight" in weights and not any("embed" in name for name in weights)


def test_tied_marian_asks_for_a_choice() -> None:
    model = marian(tied=True)
    with pytest.raises(ValueError, match=r"lm_head\.weight is tied to .*shared\.weight"):
        prunable_weights(model, kinds=("linear",))
    without = prunable_weights(model, kinds=("linear",), exclude="lm_head.weight")
    assert len(without) == 22
    with_head = prunable_weights(model, kinds=("linear",), include=["*", "lm_head.weight"])
    assert len(with_head) == 23 and with_head["model.shared.weight"] is model.lm_head.weight
    masks = make_masks(with_head, 0.5)
    apply_masks(model, masks)
    zeros = float((model.get_input_embeddings().weight == 0).float().mean())
    assert 0.49 < zeros < 0.53  # pruning the prediction layer prunes the embedding: why it needs a choice


def test_gpt2_conv1d_layers_are_linear() -> None:
    model = gpt2()
    with pytest.raises(ValueError, match=r"lm_head\.weight is tied to transformer\.wte\.weight"):
        prunable_weights(model)
    weights = prunable_weights(model, kinds="linear", exclude="lm_head")
    assert len(weights) == 8  # c_attn, c_proj, c_fc, c_proj of two blocks
    assert weights["transformer.h.0.attn.c_attn.weight"].shape == (16, 48)  # (in, out): stored transposed


@pytest.mark.parametrize("name", ["marian", "gpt2"])
def test_pruned_models_survive_save_pretrained(name: str, tmp_path: Path) -> None:
    model = marian(tied=False) if name == "marian" else gpt2()
    masks = make_masks(prunable_weights(model, "linear", exclude=None if name == "marian" else "lm_head"), 0.8)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    with hold_masks(model, masks, optimizer):
        for _ in range(3):
            train_step(model, optimizer)
        model.save_pretrained(tmp_path)
        save_masks(tmp_path / "masks.safetensors", masks)
    loaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    audit = audit_masks(loaded, load_masks(tmp_path / "masks.safetensors"))
    assert audit.revived == 0 and audit.kept == sum(int(mask.sum()) for mask in masks.values())
