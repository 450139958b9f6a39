"""Transformer-base, the report's NLP model (section 6.1): Vaswani et al. 2017, "Attention is all you need", 6+6 layers,
8 heads, width 512, feed-forward width 2,048, ReLU, fixed sinusoidal positions; as a `MarianMTModel` of transformers.

Nothing is tied: encoder embedding, decoder embedding and prediction layer are three matrices, as in the code of the
report's authors, so that pruning the prediction layer prunes no embedding. 97 linear layers at 6+6; 93.29 M trainable
parameters with a vocabulary of 32,000.

Two places for the norms:
- "post", as published: after each residual sum.
- "pre", what the authors' code ran: before each sub-layer, and once more after the last layer of both stacks
  (`twore.models.prenorm`). Equal seeds give both the same matrices.

Embeddings are multiplied by sqrt(d_model) (`scale_embedding`): section 3.4 of the paper, and the authors' code. That
code draws the embeddings like any other matrix, Xavier-uniform, so their entries start at sqrt(2 d / (V + d)) r.m.s.:
0.18 at d 512 and V 32,000, under the 0.71 of the positions. We do as they did; the original implementation instead
draws embeddings that start at 1.

Letters: B batch, S source and T target tokens, V vocabulary, d model width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import GenerationConfig, MarianMTModel

PAD, BOS, EOS, UNK = 0, 1, 2, 3  # token ids, as our sentencepiece models have them; twore.data defines the same
NORMS = ("post", "pre")


def transformer_base(
    vocab_size: int = 32_000,
    *,
    d_model: int = 512,
    layers: int = 6,
    heads: int = 8,
    ffn: int = 2048,
    dropout: float = 0.1,
    norm: str = "post",
    max_positions: int = 512,
) -> MarianMTModel:
    """An untied encoder-decoder on the CPU, in training mode, initialised by one draw from torch's global generator.

    vocab_size: of both sides, ids 0 to 3 being PAD, BOS, EOS, UNK. layers: of each stack. dropout: in [0, 1), on
    embeddings and sub-layers' outputs, not on attention weights. norm: of `NORMS`. max_positions: tokens of the
    longest sentence, its end mark included.

    Equal seeds give equal weights under every release of transformers: none of its initialisation is used.
    ValueError for a size that cannot be built.
    """
    _check(vocab_size, d_model, layers, heads, ffn, dropout, norm, max_positions)
    from transformers import MarianConfig, MarianMTModel  # seconds of import that PreResNet's users need not pay

    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "decoder_vocab_size": vocab_size,
        "d_model": d_model,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": ffn,
        "decoder_ffn_dim": ffn,
        "dropout": dropout,
        "max_position_embeddings": max_positions,
    }
    fixed: dict[str, Any] = {  # the library's defaults for all of these are of another model
        "activation_function": "relu",
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": False,  # True with tie_word_embeddings=False leaves a dead third matrix
        "tie_word_embeddings": False,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": None,  # the default, 0, ends every sentence that reaches its limit with a PAD
    }
    with torch.device("meta"):  # no memory, and no draws: all values are ours
        if norm == "pre":
            from twore.models.prenorm import PreNormMarianConfig, PreNormMarianMTModel

            model: MarianMTModel = PreNormMarianMTModel(PreNormMarianConfig(**sizes, **fixed))
        else:
            model = MarianMTModel(MarianConfig(**sizes, **fixed))
    model.to_empty(device="cpu")
    _initialise(model)
    model.generation_config = generation_config(max_new_tokens=max_positions - 1)
    return model


def teacher_forced(model: MarianMTModel, source: Tensor, target: Tensor, *, kept: Tensor | None = None) -> Tensor:
    """Logits of each next target token given the true ones before it: the forward pass of training.

    source: int64 (B, S), padded with PAD at the end. target: int64 (B, T), from BOS on, padded likewise.
    kept: positions whose logits are wanted, N in all: bool (B, T), or int64 (N,) into the flattened positions, which
        no device has to be waited for. -> (B, T, V), or (N, V).

    The same numbers as `model(...).logits`, with no cache, masks that are not read back from the device, and, with
    `kept`, no prediction at padding: at V 32,000 the prediction layer is the dearest one.
    ValueError for a model whose attention is not torch's own (sdpa): the others read these masks differently.
    """
    check_attention(model)
    hidden = model.model(
        input_ids=source,
        attention_mask=(source != PAD)[:, None, None, :],  # four dimensions are taken as they are, by both stacks
        decoder_input_ids=target,
        use_cache=False,
    ).last_hidden_state  # (B, T, d)
    if kept is not None:
        hidden = hidden[kept] if kept.dtype == torch.bool else hidden.flatten(0, 1)[kept]
    return model.lm_head(hidden) + model.final_logits_bias


def check_attention(model: nn.Module) -> None:
    """ValueError unless the model attends by torch's scaled dot product, which takes boolean masks."""
    kernel = getattr(model.config, "_attn_implementation", None)
    if kernel != "sdpa":
        raise ValueError(f"the model attends by {kernel!r}: call model.set_attn_implementation('sdpa') first")


def generation_config(*, max_new_tokens: int, beams: int = 1, length_penalty: float = 1.0) -> GenerationConfig:
    """How `model.generate` translates: every setting that matters, since models carry none of them silently.

    PAD and BOS are never written. length_penalty: a hypothesis of n tokens scores its log-probability / n**penalty.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        length_penalty=length_penalty if beams > 1 else None,  # set for greedy decoding, the library warns
        early_stopping=False if beams > 1 else None,
        suppress_tokens=[PAD, BOS],
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
    )


def sinusoids(positions: int, d_model: int) -> Tensor:
    """The fixed position table: sines, then cosines, of position / 10000^(2i / d_model). () -> (positions, d_model)

    Vaswani et al. 2017, section 3.5; there sines and cosines alternate, which only renumbers the features.
    """
    angles = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] * torch.pow(
        10_000.0, -torch.arange(0, d_model, 2, dtype=torch.float64, device="cpu") / d_model
    )
    return torch.cat((angles.sin(), angles.cos()), dim=1)


@torch.no_grad()
def _initialise(model: nn.Module) -> None:
    """Matrices Xavier-uniform, the PAD rows and all biases 0, norms the identity, positions sinusoidal.

    Values depend on the seed, on names and shapes: not on the order in which a release registers its modules.
    """
    seed = int(torch.randint(2**62, (), dtype=torch.int64, device="cpu"))
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            parameter.copy_(sinusoids(*parameter.shape))
        elif parameter.dim() == 2:
            bound = math.sqrt(6.0 / sum(parameter.shape))  # Glorot and Bengio 2010
            draws = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
            parameter.copy_(draws.uniform_(-bound, bound, generator=generator))
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.weight.requires_grad:
            module.weight[PAD] = 0.0
    for buffer in model.buffers():  # the bias of the logits, a constant
        buffer.zero_()


def _check(
    vocab_size: int, d_model: int, layers: int, heads: int, ffn: int, dropout: float, norm: str, max_positions: int
) -> None:
    if vocab_size <= UNK + 1:
        raise ValueError(f"vocab_size counts PAD, BOS, EOS and UNK too, so it is at least {UNK + 2}: got {vocab_size}")
    if layers < 1 or heads < 1 or ffn < 1:
        raise ValueError(f"layers, heads and ffn are at least 1: got {layers}, {heads}, {ffn}")
    if d_model < 2 or d_model % heads or d_model % 2:
        raise ValueError(f"d_model is even and a multiple of heads: got d_model {d_model} with {heads} heads")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is a probability in [0, 1): got {dropout}")
    if max_positions < 2:
        raise ValueError(f"max_positions counts a sentence's end mark, so it is at least 2: got {max_positions}")
    if norm not in NORMS:
        raise ValueError(f"norm is one of {', '.join(NORMS)}: got {norm!r}")
