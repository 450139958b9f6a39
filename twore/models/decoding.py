"""Translating with a model of `transformer_base`: greedy and beam search, batched, with keys and values cached.

A sentence's translation depends on the sentence and its own limit, not on its batch: exactly up to the rounding of
matrix products, whose order may change with the batch's size (in float32 a near tie may then fall the other way).

Both run on the model's device, under autocast or not, in evaluation mode, which is restored afterwards.
Letters: B sentences, b of them still open, S source tokens, T target tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from twore.models.transformer import BOS, EOS, PAD, check_attention, generation_config

if TYPE_CHECKING:
    from transformers import MarianMTModel

DROP_BELOW = 0.75  # share of a batch still open from which it is cut down; our choice: a cut copies the cache once,
# as each step does anyway, so it pays within few steps


def greedy(model: MarianMTModel, source: Tensor, limits: Tensor) -> list[list[int]]:
    """The likeliest token at each step, until EOS or the sentence's limit: what `model.generate` gives, with one
    encoder pass, one decoder position a step, finished sentences dropped and one wait for the device a step.

    source: int64 (B, S), padded with PAD at the end. limits: int64 (B,), the most tokens of each translation, from 1
    to max_positions - 1. Returns B lists of tokens without PAD, BOS and EOS; an empty list for an immediate EOS.

    Raises ValueError for limits out of range, a source that is too long or an empty sentence.
    """
    if len(source) == 0:
        return []
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    with torch.inference_mode(), _evaluating(model):
        source, limits, longest = _checked(model, source, limits)
        encoder, decoder = model.model.encoder, model.model.decoder
        # masks of four dimensions are taken as they are: the library would read others back to the host
        source_mask = (source != PAD)[:, None, None, :]  # (B, S) -> (B, 1, 1, S): for all heads and target positions
        every = torch.ones(1, 1, 1, longest, dtype=torch.bool, device=source.device)
        memory = encoder(input_ids=source, attention_mask=source_mask).last_hidden_state  # (B, S, d)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        cached: dict[str, Any] = {_cache_argument(decoder): cache, "use_cache": True}

        written = torch.full((len(source), longest), EOS, device=source.device)  # (B, T)
        rows = torch.arange(len(source), device=source.device)  # (b,): the sentences that are still decoded
        is_open = torch.ones_like(rows, dtype=torch.bool)
        tokens = torch.full_like(rows, BOS)
        for step in range(longest):
            hidden = decoder(
                input_ids=tokens[:, None],
                attention_mask=every[..., : step + 1],
                encoder_hidden_states=memory,
                encoder_attention_mask=source_mask,
                **cached,
            ).last_hidden_state  # (b, 1, d)
            tokens = _likeliest(model, hidden[:, -1])
            written[rows, step] = tokens  # a finished sentence may write on behind its EOS or limit: cut off below
            is_open = is_open & (tokens != EOS) & (limits[rows] > step + 1)
            count = int(is_open.sum())  # the step's one wait for the device
            if count == 0:
                break
            if count <= DROP_BELOW * len(rows):
                kept = is_open.to(torch.uint8).argsort(descending=True, stable=True)[:count]
                rows, tokens, is_open = rows[kept], tokens[kept], is_open[kept]
                memory, source_mask = memory[kept], source_mask[kept]
                cache.batch_select_indices(kept)
        return [_until_end(row[:limit]) for row, limit in zip(written.tolist(), limits.tolist())]


def beam_search(
    model: MarianMTModel, source: Tensor, limits: Tensor, *, beams: int = 4, length_penalty: float = 1.0
) -> list[list[int]]:
    """The best of the `beams` hypotheses kept at each step, by log-probability / length**length_penalty.

    source, limits, result and errors as for `greedy`. A hypothesis that reaches its sentence's limit is ended there
    with an EOS at no cost, and counts it in its length (what transformers calls forced_eos_token_id). The search is
    the library's; a sentence ends when no open hypothesis looks able to win (early_stopping=False).
    """
    if beams < 1:
        raise ValueError(f"beams, the hypotheses kept a sentence, is at least 1: got {beams}")
    if len(source) == 0:
        return []
    from transformers import LogitsProcessorList

    translator: Any = model  # its declared types fit no seq2seq model
    with torch.inference_mode(), _evaluating(model):
        source, limits, longest = _checked(model, source, limits)
        written = translator.generate(
            input_ids=source,
            attention_mask=(source != PAD).long(),
            generation_config=generation_config(max_new_tokens=longest + 1, beams=beams, length_penalty=length_penalty),
            logits_processor=LogitsProcessorList([_EndAtLimit(limits.repeat_interleave(beams))]),
        )  # (B, 1 + T), with BOS
        return [_until_end(row[1:]) for row in written.tolist()]


class _EndAtLimit:
    """A logits processor: EOS is certain for a hypothesis that is as long as its sentence may be."""

    def __init__(self, limits: Tensor) -> None:
        self._limits = limits  # (B * beams,)

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """tokens: (B * beams, 1 + T), with BOS. (B * beams, V) -> (B * beams, V)"""
        ended = torch.full_like(scores, -torch.inf)
        ended[:, EOS] = 0.0
        full = tokens.shape[1] - 1 >= self._limits
        return torch.where(full[:, None], ended, scores)


def _cache_argument(decoder: nn.Module) -> str:
    """What this decoder calls its cache: transformers renamed it, and warns at every step of the old name."""
    names = inspect.signature(decoder.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _likeliest(model: MarianMTModel, hidden: Tensor) -> Tensor:
    """The likeliest token of each row, never PAD or BOS. (b, d) -> (b,)"""
    logits = model.lm_head(hidden) + model.final_logits_bias  # (b, V)
    return logits[:, EOS:].argmax(dim=-1) + EOS  # PAD and BOS are the two ids before EOS


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


def _checked(model: MarianMTModel, source: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, int]:
    """Source and limits on the model's device, and the largest limit; ValueError says what is wrong."""
    check_attention(model)
    config: Any = model.config
    ids = (config.pad_token_id, config.decoder_start_token_id, config.eos_token_id)
    if ids != (PAD, BOS, EOS):
        raise ValueError(
            f"decoding expects PAD, BOS (as the decoder's start) and EOS to be {PAD}, {BOS}, {EOS}, as transformer_base"
            f" has them: this model has {ids}, translate with its own generate()"
        )
    positions = config.max_position_embeddings
    if source.dim() != 2 or limits.shape != source.shape[:1]:
        raise ValueError(f"source is (B, S) and limits is (B,): got {tuple(source.shape)} and {tuple(limits.shape)}")
    if source.shape[1] > positions:
        raise ValueError(
            f"the longest source sentence has {source.shape[1]} tokens, but the model has {positions} positions: "
            "cut it, or build the model with a larger max_positions"
        )
    source, limits = source.to(model.device), limits.to(model.device)
    empty = (source == PAD).all(dim=1).any()
    smallest, largest, has_empty = torch.stack((limits.min(), limits.max(), empty.to(limits.dtype))).tolist()
    if smallest < 1 or largest > positions - 1:
        raise ValueError(
            f"limits are from 1 to {positions - 1}, one less than the model's positions: got {smallest} to {largest}"
        )
    if has_empty:
        raise ValueError("a source sentence has no token but PAD: leave it out, or give it at least its EOS")
    return source, limits, largest


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; the mode before is restored."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
