"""Greedy and beam search: against transformers' generate and an uncached loop, and independent of the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig, MarianMTModel

from twore.models import BOS, EOS, PAD, UNK, beam_search, greedy, teacher_forced, transformer_base
from twore.models.decoding import DROP_BELOW
from twore.models.transformer import NORMS

VOCABULARY, LONGEST, POSITIONS = 30, 9, 24
LIMIT = 14  # longer than any reversed sentence, so that some translations end themselves and some are cut
SEARCHES = (greedy, beam_search)


def sentences(count: int, seed: int) -> Tensor:
    """Random sources of 2 to 9 tokens with their EOS. -> (count, 10)"""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(UNK + 1, VOCABULARY, (count, LONGEST + 1), generator=draw)
    lengths = torch.randint(2, LONGEST + 1, (count, 1), generator=draw)
    places = torch.arange(LONGEST + 1)
    return tokens.masked_fill(places == lengths, EOS).masked_fill(places > lengths, PAD)


def backwards(source: Tensor) -> Tensor:
    """The task: each source reversed, then EOS."""
    result = torch.full_like(source, PAD)
    for row, tokens in enumerate(source.tolist()):
        end = tokens.index(EOS)
        result[row, : end + 1] = torch.tensor([*tokens[:end][::-1], EOS])
    return result


@cache
def trained(norm: str) -> MarianMTModel:
    """Trained so briefly that it knows how long a sentence is, more or less, and errs about the words."""
    torch.manual_seed(0)
    model = transformer_base(
        VOCABULARY, d_model=32, layers=2, heads=4, ffn=64, dropout=0.0, norm=norm, max_positions=POSITIONS
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(100):
        source = sentences(32, seed=step)
        labels = backwards(source)
        target = torch.cat((torch.full((32, 1), BOS), labels[:, :-1]), dim=1)
        kept = labels != PAD
        optimizer.zero_grad()
        F.cross_entropy(teacher_forced(model, source, target, kept=kept), labels[kept]).backward()
        optimizer.step()
    return model.eval()


def same_limits(source: Tensor, limit: int = LIMIT) -> Tensor:
    return torch.full((len(source),), limit)


def own_limits(source: Tensor) -> Tensor:
    """From 1 to 14, of each sentence."""
    return 1 + torch.arange(len(source)) * 5 % LIMIT


def generated(model: MarianMTModel, source: Tensor, **settings: Any) -> list[list[int]]:
    """By the library, cut before EOS."""
    config = GenerationConfig(
        do_sample=False, suppress_tokens=[PAD, BOS], pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        decoder_start_token_id=BOS, **settings,
    )  # fmt: skip
    written = model.generate(input_ids=source, attention_mask=(source != PAD).long(), generation_config=config)
    return [row[1 : row.index(EOS) if EOS in row else None] for row in written.tolist()]


def uncached(model: MarianMTModel, source: Tensor, limits: Tensor) -> list[list[int]]:
    """Greedy decoding as one would write it first: a sentence at a time, its whole prefix at each step."""
    results = []
    for row, limit in zip(source, limits.tolist()):
        tokens = [BOS]
        while len(tokens) <= limit:
            logits = model(
                input_ids=row[None], attention_mask=(row != PAD)[None].long(), decoder_input_ids=torch.tensor([tokens])
            ).logits[0, -1]
            logits[[PAD, BOS]] = -torch.inf
            tokens.append(int(logits.argmax()))
            if tokens[-1] == EOS:
                break
        results.append([token for token in tokens[1:] if token != EOS])
    return results


def alone(search: Callable[..., list[list[int]]], model: MarianMTModel, source: Tensor, limits: Tensor) -> list:
    """Each sentence in a batch of its own, without padding."""
    return [search(model, row[row != PAD][None], limit[None])[0] for row, limit in zip(source, limits)]


@pytest.mark.parametrize("norm", NORMS)
def test_greedy_equals_the_library_s(norm: str) -> None:
    source = sentences(60, seed=1000)
    ours = greedy(trained(norm), source, same_limits(source))
    assert ours == generated(trained(norm), source, num_beams=1, max_new_tokens=LIMIT)
    assert len({len(tokens) for tokens in ours}) > 4  # the test model ends sentences at different places
    model = trained(norm)
    default = model.generate(input_ids=source, attention_mask=(source != PAD).long(), max_new_tokens=LIMIT)
    assert ours == [row[1 : row.index(EOS) if EOS in row else None] for row in default.tolist()]


@pytest.mark.parametrize("norm", NORMS)
@torch.no_grad()
def test_greedy_equals_an_uncached_loop(norm: str) -> None:
    source = sentences(30, seed=1001)
    limits = own_limits(source)
    assert greedy(trained(norm), source, limits) == uncached(trained(norm), source, limits)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("beams", "length_penalty"), [(4, 1.0), (2, 0.0)])
def test_beam_search_equals_the_library_s(norm: str, beams: int, length_penalty: float) -> None:
    source = sentences(60, seed=1002)
    for limit in (4, LIMIT):  # 4: most hypotheses are ended by the limit
        ours = beam_search(
            trained(norm), source, same_limits(source, limit), beams=beams, length_penalty=length_penalty
        )
        library = generated(
            trained(norm), source, num_beams=beams, max_new_tokens=limit + 1, forced_eos_token_id=EOS,
            length_penalty=length_penalty, early_stopping=False,
        )  # fmt: skip
        assert ours == library
    assert ours != greedy(trained(norm), source, same_limits(source))


def test_one_beam_is_greedy() -> None:
    source = sentences(40, seed=1003)
    limits = own_limits(source)
    assert beam_search(trained("post"), source, limits, beams=1) == greedy(trained("post"), source, limits)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("norm", NORMS)
def test_a_translation_does_not_depend_on_its_batch_in_float64(search: Callable[..., Any], norm: str) -> None:
    model = trained(norm).double()
    try:
        source = sentences(24, seed=1004)
        limits = own_limits(source)
        together = search(model, source, limits)
        assert together == alone(search, model, source, limits)
        backward = search(model, source.flip(0), limits.flip(0))
        assert together == backward[::-1]
    finally:
        model.float()


def test_a_translation_does_not_depend_on_its_batch_in_float32() -> None:
    """At least 99.9 % of sentences: rounding differs with the shape of a batch."""
    source = sentences(400, seed=1005)
    limits = own_limits(source)
    together = greedy(trained("post"), source, limits)
    parts = [greedy(trained("post"), s, m) for s, m in zip(source.split(11), limits.split(11))]
    apart = [tokens for part in parts for tokens in part]
    assert sum(a == b for a, b in zip(together, apart)) >= 0.999 * len(source)


@pytest.mark.parametrize("search", SEARCHES)
def test_limits_hold_for_each_sentence(search: Callable[..., Any]) -> None:
    source = sentences(40, seed=1006)
    limits = own_limits(source)
    results = search(trained("post"), source, limits)
    assert all(len(tokens) <= limit for tokens, limit in zip(results, limits.tolist()))
    assert any(len(tokens) == limit for tokens, limit in zip(results, limits.tolist()))
    assert not {PAD, BOS, EOS} & {token for tokens in results for token in tokens}


def test_a_greedy_limit_only_cuts() -> None:
    source = sentences(40, seed=1007)
    limits = own_limits(source)
    free = greedy(trained("pre"), source, same_limits(source))
    cut = greedy(trained("pre"), source, limits)
    assert cut == [tokens[:limit] for tokens, limit in zip(free, limits.tolist())] and cut != free


@pytest.mark.parametrize("search", SEARCHES)
def test_pad_and_bos_are_never_written(search: Callable[..., Any]) -> None:
    """Even where the model would: both logits are made the largest."""
    model = trained("post")
    source = sentences(5, seed=1008)
    try:
        model.final_logits_bias[:, [PAD, BOS]] = 1000.0
        results = search(model, source, same_limits(source))
    finally:
        model.final_logits_bias.zero_()
    assert any(results) and not {PAD, BOS} & {token for tokens in results for token in tokens}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("norm", NORMS)
def test_runs_under_bf16_autocast_and_inference_mode(search: Callable[..., Any], norm: str) -> None:
    source = sentences(10, seed=1009)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        results = search(trained(norm), source, same_limits(source))
    assert len(results) == 10 and any(results)


@pytest.mark.parametrize("search", SEARCHES)
def test_dropout_is_off_while_decoding_and_the_mode_is_restored(search: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model = transformer_base(30, d_model=16, layers=1, heads=2, ffn=32, dropout=0.5, max_positions=POSITIONS)
    source = sentences(20, seed=1010)
    results = [search(model, source, same_limits(source)) for _ in range(2)]
    assert results[0] == results[1] and model.training
    model.eval()
    assert search(model, source, same_limits(source)) == results[0] and not model.training


def test_greedy_waits_once_a_step_and_drops_finished_sentences() -> None:
    class Waits(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
            return func(*args, **(kwargs or {}))

    source, sizes, model = sentences(40, seed=1011), [], trained("post")
    hook = model.model.decoder.layers[0].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with Waits() as waits:
        results = greedy(model, source, own_limits(source))
    hook.remove()
    needed = [min(len(tokens) + 1, limit) for tokens, limit in zip(results, own_limits(source).tolist())]
    assert waits.count <= len(sizes) == max(needed)
    still_open = [sum(need > step for need in needed) for step in range(len(sizes))]
    assert sizes[0] == 40 and all(DROP_BELOW * size <= count for size, count in zip(sizes, still_open))


def test_the_library_warns_of_nothing() -> None:
    model, source = trained("post"), sentences(3, seed=1500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(greedy(model, source, same_limits(source))) == 3


def test_stops_when_all_are_done() -> None:
    """EOS at once for every sentence: one step, empty translations."""
    model, steps = trained("post"), []
    source = sentences(4, seed=1012)
    hook = model.model.decoder.layers[0].register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        model.final_logits_bias[:, EOS] = 1000.0
        assert greedy(model, source, same_limits(source)) == [[]] * 4
    finally:
        model.final_logits_bias.zero_()
        hook.remove()
    assert len(steps) == 1


@pytest.mark.parametrize("search", SEARCHES)
def test_no_sentence_no_translation(search: Callable[..., Any]) -> None:
    assert search(trained("post"), torch.empty(0, 5, dtype=torch.int64), torch.empty(0, dtype=torch.int64)) == []


@pytest.mark.parametrize("search", SEARCHES)
def test_bad_input_is_one_sentence(search: Callable[..., Any]) -> None:
    model, source = trained("post"), sentences(3, seed=1013)
    for limits in (torch.tensor([3, 0, 3]), torch.tensor([3, POSITIONS, 3])):
        with pytest.raises(ValueError, match="limits are from 1 to 23"):
            search(model, source, limits)
    with pytest.raises(ValueError, match=r"limits is \(B,\)"):
        search(model, source, torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="has 25 tokens, but the model has 24 positions"):
        search(model, torch.full((1, 25), UNK), torch.tensor([3]))
    with pytest.raises(ValueError, match="no token but PAD"):
        search(model, torch.tensor([[UNK, EOS], [PAD, PAD]]), torch.tensor([3, 3]))


def test_beams_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1: got 0"):
        beam_search(trained("post"), sentences(1, seed=0), torch.tensor([3]), beams=0)
