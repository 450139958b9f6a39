"""Transformer-base: what is prunable, how it starts, and that both norm placements compute what they should."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, MarianConfig, MarianMTModel
from transformers.utils import logging

from twore.models import BOS, EOS, PAD, UNK, teacher_forced, transformer_base
from twore.models.prenorm import PreNormMarianMTModel
from twore.models.transformer import NORMS, sinusoids
from twore.pruning import prunable_weights

SIZES: dict[str, Any] = {"d_model": 16, "layers": 2, "heads": 2, "ffn": 32, "max_positions": 24}
# sha256 of the initial weights times 10,000, rounded, at seed 0 and SIZES: the same with transformers 5.0.0 and 5.23.0
GOLDEN = {"post": "62e5fef8e43badfe", "pre": "0237ce345053ce55"}


def small(*, seed: int = 0, **changes: Any) -> MarianMTModel:
    torch.manual_seed(seed)
    return transformer_base(50, **(SIZES | changes))


def shaken(norm: str) -> MarianMTModel:
    """In float64, with norms and biases moved away from 1 and 0, so that a misplaced one shows."""
    model = small(norm=norm, dropout=0.0).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch(rows: int = 3) -> tuple[Tensor, Tensor]:
    """Sources of 7, 6, 5, ... tokens and targets of 6 from BOS on, padded."""
    source, target = torch.randint(UNK + 1, 50, (rows, 7)), torch.randint(UNK + 1, 50, (rows, 6))
    for row in range(1, rows):
        source[row, -row:], target[row, 6 - row :] = PAD, PAD
    target[:, 0] = BOS
    return source, target


@pytest.fixture(scope="module")
def base() -> MarianMTModel:
    return transformer_base()


def test_base_has_the_published_size_and_97_linear_weights(base: MarianMTModel) -> None:
    weights = prunable_weights(base, kinds=("linear",))
    assert len(weights) == 97 and sum(w.numel() for w in weights.values()) == 60_424_192
    assert sum(p.numel() for p in base.parameters() if p.requires_grad) == 93_290_496
    assert tuple(weights["lm_head.weight"].shape) == (32_000, 512)


def test_no_embedding_and_no_position_table_is_prunable(base: MarianMTModel) -> None:
    assert not [name for name in prunable_weights(base) if "embed" in name]
    frozen = {name for name, parameter in base.named_parameters() if not parameter.requires_grad}
    assert frozen == {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"}


def test_nothing_is_tied_and_attention_is_sdpa(base: MarianMTModel) -> None:
    parameters = list(base.parameters())
    assert len({p.data_ptr() for p in parameters}) == len(parameters)
    assert base.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("norm", NORMS)
def test_layers_are_prunable_by_the_same_names(norm: str) -> None:
    weights = prunable_weights(small(norm=norm), kinds=("linear",))
    assert len(weights) == 2 * 6 + 2 * 10 + 1  # q, k, v, out, fc1, fc2; a decoder layer attends twice
    assert list(weights) == list(prunable_weights(small(), kinds=("linear",)))


def test_a_tied_model_asks_for_a_choice() -> None:
    config = MarianConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=PAD, bos_token_id=BOS,
        eos_token_id=EOS, decoder_start_token_id=BOS, forced_eos_token_id=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"lm_head\.weight is tied to .*leave it out with exclude='lm_head.weight'"):
        prunable_weights(MarianMTModel(config), kinds=("linear",))


def test_equal_seeds_give_equal_weights_and_other_seeds_others() -> None:
    a, b, c = (small(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    matrices = [name for name in a if a[name].dim() == 2 and not name.endswith(("positions.weight", "logits_bias"))]
    assert len(matrices) == 33 + 2 and not any(torch.equal(a[name], c[name]) for name in matrices)


def test_both_norms_start_from_the_same_matrices() -> None:
    post, pre = prunable_weights(small()), prunable_weights(small(norm="pre"))
    assert all(torch.equal(post[name], pre[name]) for name in post)


@pytest.mark.parametrize("norm", NORMS)
def test_golden_initial_weights(norm: str) -> None:
    """A release of transformers, or of torch, that moves the initialisation must not go unnoticed."""
    digest = hashlib.sha256()
    for name, parameter in sorted(small(norm=norm).named_parameters()):
        digest.update(name.encode() + (parameter * 10_000).round().to(torch.int32).numpy().tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[norm]


def test_building_takes_one_draw_whatever_the_size_and_default_dtype() -> None:
    small()
    after_small = torch.rand(3)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        wide = transformer_base(50, **SIZES)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(after_small, torch.rand(3))
    assert wide.lm_head.weight.dtype == torch.float64 and torch.equal(
        wide.lm_head.weight.float(), small().lm_head.weight
    )


def test_initial_values_are_xavier_uniform_zeros_and_ones() -> None:
    model = transformer_base(400, **(SIZES | {"ffn": 512}))
    layer = model.model.encoder.layers[0]
    for matrix in (model.lm_head.weight, layer.fc1.weight, model.model.decoder.embed_tokens.weight):
        weight = matrix.detach()
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.98 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    for embedding in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
        assert not embedding.weight[PAD].any() and embedding.weight[UNK].all()
    assert not layer.fc1.bias.any() and not layer.self_attn_layer_norm.bias.any()
    assert (layer.self_attn_layer_norm.weight == 1).all()


def test_sinusoids_by_hand() -> None:
    """d 4: wavelengths 2 pi and 200 pi; sines first, then cosines."""
    one = torch.tensor([1.0, 0.01], dtype=torch.float64)
    table = sinusoids(3, 4)
    assert torch.allclose(table[0], torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))
    assert torch.allclose(table[2], torch.cat(((2 * one).sin(), (2 * one).cos())))
    positions = small().model.decoder.embed_positions.weight
    assert torch.equal(positions, sinusoids(24, 16).float()) and not positions.requires_grad


@pytest.mark.parametrize("norm", NORMS)
def test_every_trainable_parameter_gets_a_gradient(norm: str) -> None:
    model = small(norm=norm)
    teacher_forced(model, *batch()).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # softmax forgets what is added to all keys alike, so the key biases' gradients are rounding errors
    assert not [name for name in without if not name.endswith("k_proj.bias")]


@pytest.mark.parametrize("norm", NORMS)
def test_hidden_states_equal_torch_s_own_transformer(norm: str) -> None:
    model = shaken(norm)
    source, target = batch()
    theirs = torch_transformer(model, norm)
    causal = torch.ones(6, 6, dtype=torch.bool).triu(1)  # torch masks what is True

    def embedded(stack: nn.Module, tokens: Tensor) -> Tensor:
        return stack.embed_tokens(tokens) * 16**0.5 + sinusoids(24, 16)[: tokens.shape[1]].float()  # as stored

    hidden = theirs(
        embedded(model.model.encoder, source),
        embedded(model.model.decoder, target),
        tgt_mask=causal,
        src_key_padding_mask=source == PAD,
        memory_key_padding_mask=source == PAD,
    )
    logits = teacher_forced(model, source, target)
    assert torch.allclose(logits, hidden @ model.lm_head.weight.T, rtol=0, atol=1e-11)


@pytest.mark.parametrize("norm", NORMS)
def test_teacher_forced_is_the_library_s_forward(norm: str) -> None:
    model = shaken(norm)
    source, target = batch()
    logits = teacher_forced(model, source, target)
    library = model(input_ids=source, attention_mask=(source != PAD).long(), decoder_input_ids=target).logits
    kept = target != PAD
    assert torch.allclose(logits, library, atol=1e-12)
    assert torch.allclose(teacher_forced(model, source, target, kept=kept), library[kept], atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_state_survives_a_round_trip_a_copy_and_a_saved_folder(norm: str, tmp_path: Path) -> None:
    logging.disable_progress_bar()
    model, other = shaken(norm), small(norm=norm, seed=1).double().eval()
    other.load_state_dict(model.state_dict())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    expected = teacher_forced(model, *(tokens := batch()))
    for twin in (other, copy.deepcopy(model), loaded):
        assert torch.equal(teacher_forced(twin, *tokens), expected)
    assert loaded.generation_config.suppress_tokens == [PAD, BOS]


def test_a_saved_pre_norm_model_is_not_taken_for_a_post_norm_one(tmp_path: Path) -> None:
    logging.disable_progress_bar()
    model = small(norm="pre")
    assert isinstance(model, PreNormMarianMTModel)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="twore_prenorm_marian"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("norm", NORMS)
def test_building_says_nothing(norm: str, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(norm=norm)
    assert capfd.readouterr() == ("", "")


def test_importing_models_does_not_import_transformers() -> None:
    code = "import sys, twore.models; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 18, "heads": 4}, "multiple of heads"),
        ({"d_model": 15, "heads": 3}, "even"),
        ({"layers": 0}, "at least 1"),
        ({"ffn": 0}, "at least 1"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"max_positions": 1}, "end mark"),
        ({"norm": "middle"}, "one of post, pre: got 'middle'"),
        ({"vocab_size": 4}, "PAD, BOS, EOS and UNK"),
    ],
)
def test_impossible_sizes_are_refused_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer_base(**({"vocab_size": 50} | SIZES | changes))


def torch_transformer(model: MarianMTModel, norm: str) -> nn.Transformer:
    """torch's own encoder-decoder with this model's weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="enable_nested_tensor is True")
        theirs = nn.Transformer(16, 2, 2, 2, 32, 0.0, batch_first=True, norm_first=norm == "pre").double().eval()
    if norm == "post":
        theirs.encoder.norm = theirs.decoder.norm = None
    else:
        theirs.encoder.norm = model.model.encoder.layers[-1].final_layer_norm
        theirs.decoder.norm = model.model.decoder.layers[-1].final_layer_norm

    def attention(ours: nn.Module, packed: nn.MultiheadAttention) -> None:
        projections = (ours.q_proj, ours.k_proj, ours.v_proj)
        packed.in_proj_weight = nn.Parameter(torch.cat([p.weight for p in projections]))
        packed.in_proj_bias = nn.Parameter(torch.cat([p.bias for p in projections]))
        packed.out_proj.load_state_dict(ours.out_proj.state_dict())

    for ours, layer in (
        *zip(model.model.encoder.layers, theirs.encoder.layers),
        *zip(model.model.decoder.layers, theirs.decoder.layers),
    ):
        sublayers = [("self_attn", "self_attn_layer_norm"), ("fc1", "final_layer_norm")]
        attention(ours.self_attn, layer.self_attn)
        if hasattr(ours, "encoder_attn"):
            attention(ours.encoder_attn, layer.multihead_attn)
            sublayers.insert(1, ("encoder_attn", "encoder_attn_layer_norm"))
        layer.linear1.weight, layer.linear1.bias = ours.fc1.weight, ours.fc1.bias
        layer.linear2.weight, layer.linear2.bias = ours.fc2.weight, ours.fc2.bias
        for number, (sublayer, name) in enumerate(sublayers, start=1):
            moved = getattr(ours, sublayer).input_norm if norm == "pre" else getattr(ours, name)
            setattr(layer, f"norm{number}", moved)
    return theirs
