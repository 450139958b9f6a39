"""Pre-norm Marian: x + f(norm(x)) in place of norm(x + f(x)), and a last norm after each stack. Xiong et al. 2020, "On
layer normalization in the Transformer architecture"; what the code of the report's authors ran.

Only the norms move. A layer of the library ends each sub-layer with a norm; here that norm stands at the entrance of
the attention or of the first feed-forward matrix, where a hook applies it, and the identity takes its old place. The
last layer of a stack keeps a norm at its end: the stack's. So the layers' own code, cache included, stays the
library's, under every release, and all linear weights keep their names.

The configuration has a model type of its own, so that a saved model is not mistaken for a post-norm one:
load it with `PreNormMarianMTModel.from_pretrained`. Importing this module imports transformers: seconds.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import MarianConfig, MarianMTModel


class PreNormMarianConfig(MarianConfig):
    """A Marian configuration whose model is pre-norm."""

    model_type = "twore_prenorm_marian"


class PreNormMarianMTModel(MarianMTModel):
    """A Marian model with its norms before the sub-layers and one after each stack."""

    config: PreNormMarianConfig
    config_class = PreNormMarianConfig

    def __init__(self, config: PreNormMarianConfig) -> None:
        super().__init__(config)
        for stack in (self.model.encoder, self.model.decoder):
            for layer in stack.layers:
                _enter(layer.self_attn, layer, "self_attn_layer_norm")
                if hasattr(layer, "encoder_attn"):
                    _enter(layer.encoder_attn, layer, "encoder_attn_layer_norm")
                _enter(layer.fc1, layer, "final_layer_norm")
            stack.layers[-1].final_layer_norm = nn.LayerNorm(config.d_model)


def _enter(sublayer: nn.Module, layer: nn.Module, norm: str) -> None:
    """Move a layer's norm to the entrance of a sub-layer."""
    sublayer.input_norm = getattr(layer, norm)
    setattr(layer, norm, nn.Identity())
    sublayer.register_forward_pre_hook(_normalise, with_kwargs=True)


def _normalise(sublayer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
    """Apply the norm to a sub-layer's input: the first argument, or the one that attention calls hidden_states."""
    norm: Any = sublayer.input_norm
    if args:
        return (norm(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": norm(kwargs["hidden_states"])}
