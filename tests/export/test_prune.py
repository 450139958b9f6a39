"""Pruned folders: loadable, equal to the model pruned in memory, zeros in place, nothing written into the source."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tiny_models import HEADS, NAMES, build, contents, logits

from twore.checkpoints import LayerChoice, open_checkpoint
from twore.export import prune_checkpoint
from twore.export.masks import masks_of
from twore.pruning import apply_masks, audit_masks, hold_masks, load_masks, make_masks, prunable_weights

SKIP = LayerChoice(tied="skip")


def pruned_in_memory(name: str, model: hf.PreTrainedModel, ratio: float = 0.6) -> tuple[hf.PreTrainedModel, dict]:
    model = copy.deepcopy(model)
    masks = make_masks(prunable_weights(model, exclude=HEADS.get(name)), ratio)
    apply_masks(model, masks)
    return model, masks


def same_weights(one: hf.PreTrainedModel, two: hf.PreTrainedModel) -> bool:
    other = two.state_dict()
    return all(
        value.dtype == other[key].dtype and torch.equal(value, other[key]) for key, value in one.state_dict().items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model_as_pruned_in_memory(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "in")
    (tmp_path / "in/tokenizer.json").write_text("{}")
    (tmp_path / "in/optimizer.pt").write_bytes(b"state")
    before = contents(tmp_path / "in")
    result = prune_checkpoint(tmp_path / "in", 0.6, tmp_path / "out", choose=SKIP)
    expected, masks = pruned_in_memory(name, model)

    loaded = type(model).from_pretrained(tmp_path / "out")
    assert same_weights(expected, loaded)
    assert torch.equal(logits(name, expected), logits(name, loaded))
    assert not torch.equal(logits(name, model), logits(name, loaded))
    stored = load_masks(tmp_path / "out/masks.safetensors")
    assert set(stored) == set(masks) and all(torch.equal(stored[key], masks[key]) for key in masks)
    assert audit_masks(loaded, stored).revived == 0

    loaded.save_pretrained(tmp_path / "again")
    again = type(model).from_pretrained(tmp_path / "again")
    assert same_weights(loaded, again) and audit_masks(again, stored).revived == 0

    assert contents(tmp_path / "in") == before
    assert result.left_behind == ("optimizer.pt",) and not (tmp_path / "out/optimizer.pt").exists()
    assert (tmp_path / "out/tokenizer.json").read_text() == "{}"
    assert not list(tmp_path.glob(".*"))  # no temporary folder left


def test_zeros_are_held_in_fine_tuning_from_the_mask_file(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path / "in")
    prune_checkpoint(tmp_path / "in", 0.8, tmp_path / "out", choose=SKIP)
    model = hf.GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    masks = load_masks(tmp_path / "out/masks.safetensors")
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    with hold_masks(model, masks, optimizer):
        for _ in range(3):
            tokens = torch.randint(3, 40, (2, 8))
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
    assert audit_masks(model, masks).revived == 0


@pytest.mark.parametrize("name", HEADS)
def test_tied_weights_ask_for_a_choice(name: str, tmp_path: Path) -> None:
    build(name).save_pretrained(tmp_path / "in")
    with pytest.raises(
        ValueError, match=rf"{HEADS[name]}\.weight is tied to .*--tied skip.*--tied prune.*--tied untie"
    ):
        prune_checkpoint(tmp_path / "in", 0.6, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_excluding_the_head_or_its_embedding_is_a_choice_too(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path / "in")
    names = []
    for number, pattern in enumerate(("lm_head", "transformer.wte")):
        choice = LayerChoice(exclude=pattern)
        names.append(list(prune_checkpoint(tmp_path / "in", 0.6, tmp_path / f"{number}", choose=choice).layers["name"]))
    assert names[0] == names[1] and len(names[0]) == 4


@pytest.mark.parametrize("name", HEADS)
def test_a_shared_matrix_pruned_for_all_its_uses(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "in")
    result = prune_checkpoint(tmp_path / "in", 0.6, tmp_path / "out", choose=LayerChoice(tied="prune"))
    masks = make_masks(prunable_weights(model, include=["*", f"{HEADS[name]}.weight"]), 0.6)
    apply_masks(model, masks)
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert same_weights(model, loaded) and torch.equal(logits(name, model), logits(name, loaded))
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert set(load_masks(result.masks)) == set(masks)
    assert any("hold the same zeros" in note for note in result.notes)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_an_untied_head_is_pruned_and_the_embedding_is_not(name: str, sharded: bool, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "in", max_shard_size="4KB" if sharded else "1GB")
    assert bool(list((tmp_path / "in").glob("*index.json"))) == sharded
    result = prune_checkpoint(tmp_path / "in", 0.6, tmp_path / "out", choose=LayerChoice(tied="untie"))
    loaded = type(model).from_pretrained(tmp_path / "out")
    expected, _ = pruned_in_memory(name, model)
    head = make_masks({"head": model.get_output_embeddings().weight}, 0.6)["head"]
    for attempt in ("first", "saved again"):
        assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight), attempt
        assert torch.equal(loaded.get_output_embeddings().weight, model.get_output_embeddings().weight * head), attempt
        assert audit_masks(loaded, load_masks(result.masks)).revived == 0
        loaded.save_pretrained(tmp_path / "again")
        loaded = type(model).from_pretrained(tmp_path / "again")
    with torch.no_grad():  # the same as untying in memory
        old = expected.get_output_embeddings()
        new = torch.nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
        new.weight.copy_(model.get_output_embeddings().weight * head)
        if old.bias is not None:
            new.bias = old.bias
        expected.set_output_embeddings(new)
    assert torch.equal(logits(name, expected), logits(name, loaded))
    assert any("matrix of its own" in note for note in result.notes)


def test_the_flag_is_set_only_where_it_says_the_truth(tmp_path: Path) -> None:
    flags = {}
    for name in HEADS:
        build(name).save_pretrained(tmp_path / name)
        prune_checkpoint(tmp_path / name, 0.6, tmp_path / f"{name}-out", choose=LayerChoice(tied="untie"))
        flags[name] = json.loads((tmp_path / f"{name}-out/config.json").read_text()).get("tie_word_embeddings")
    # BERT's flag would untie a bias as well, Marian's three embeddings; T5's means the scale of the logits
    assert flags == {"t5": True, "bert": True, "gpt2": False, "marian": True}


@pytest.mark.parametrize("name", ["marian", "vit"])
def test_shards_stay_as_they_were(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "in", max_shard_size="4KB")
    prune_checkpoint(tmp_path / "in", 0.6, tmp_path / "out", choose=SKIP)
    shards = sorted(path.name for path in (tmp_path / "in").glob("*.safetensors"))
    assert len(shards) > 3
    assert sorted(p.name for p in (tmp_path / "out").glob("model*.safetensors")) == shards
    index = "model.safetensors.index.json"
    assert json.loads((tmp_path / "in" / index).read_text()) == json.loads((tmp_path / "out" / index).read_text())
    for shard in shards:
        old, new = load_file(tmp_path / "in" / shard), load_file(tmp_path / "out" / shard)
        assert {key: value.shape for key, value in old.items()} == {key: value.shape for key, value in new.items()}
    assert same_weights(pruned_in_memory(name, model)[0], type(model).from_pretrained(tmp_path / "out"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_stay(dtype: torch.dtype, tmp_path: Path) -> None:
    model = build("bert", dtype)
    model.save_pretrained(tmp_path / "in")
    prune_checkpoint(tmp_path / "in", 0.6, tmp_path / "out", choose=SKIP)
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert loaded.dtype == dtype and same_weights(pruned_in_memory("bert", model)[0], loaded)


def test_a_folder_of_torch_files(tmp_path: Path) -> None:
    """pytorch_model.bin stores both names of a tied weight, as one."""
    model = build("gpt2")
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(tmp_path / "in")
    torch.save(model.state_dict(), tmp_path / "in/pytorch_model.bin")
    for tied in ("skip", "prune", "untie"):
        prune_checkpoint(tmp_path / "in", 0.6, tmp_path / tied, choose=LayerChoice(tied=tied))
        loaded = hf.GPT2LMHeadModel.from_pretrained(tmp_path / tied)
        zeros = [
            float((embedding.weight == 0).float().mean())
            for embedding in (loaded.get_input_embeddings(), loaded.get_output_embeddings())
        ]
        assert zeros == pytest.approx({"skip": [0, 0], "prune": [0.6, 0.6], "untie": [0, 0.6]}[tied])
    sizes = {tied: (tmp_path / tied / "pytorch_model.bin").stat().st_size for tied in ("skip", "prune", "untie")}
    matrix = 40 * 16 * 4  # bytes; one that two names share stays one
    assert abs(sizes["prune"] - sizes["skip"]) < 200 and sizes["untie"] - sizes["prune"] > matrix - 200


def state_dict() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "embed.weight": (9, 5), "fc.weight": (5, 5), "fc.bias": (5,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_a_state_dict_of_torch_keeps_what_else_is_in_the_file(tmp_path: Path) -> None:
    state = state_dict()
    state["head.weight"] = state["fc.weight"]
    torch.save({"model": state, "epoch": 7, "optimizer": {"state": {0: {"exp": torch.ones(3)}}}}, tmp_path / "m.pt")
    before = contents(tmp_path)["m.pt"]
    with pytest.raises(ValueError, match=r"fc\.weight is tied to head\.weight"):
        prune_checkpoint(tmp_path / "m.pt", 0.5, tmp_path / "out.pt")
    result = prune_checkpoint(tmp_path / "m.pt", 0.5, tmp_path / "out.pt", choose=LayerChoice(tied="prune"))
    loaded = torch.load(tmp_path / "out.pt", weights_only=True)
    assert loaded["epoch"] == 7 and torch.equal(loaded["optimizer"]["state"][0]["exp"], torch.ones(3))
    masks = make_masks({name: state[name] for name in ("conv.weight", "fc.weight")}, 0.5)
    for name, value in loaded["model"].items():
        mask = masks.get("fc.weight" if name == "head.weight" else name)
        assert torch.equal(value, state[name] if mask is None else state[name] * mask), name
    assert loaded["model"]["fc.weight"].data_ptr() == loaded["model"]["head.weight"].data_ptr()
    assert set(load_masks(result.masks)) == set(masks)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "m.pt", "out.masks.safetensors", "out.pruning.csv", "out.pruning.json", "out.pt",
    ]  # fmt: skip
    assert contents(tmp_path)["m.pt"] == before


def test_a_safetensors_file(tmp_path: Path) -> None:
    save_file(state_dict(), tmp_path / "m.safetensors", metadata={"mine": "yes"})
    result = prune_checkpoint(tmp_path / "m.safetensors", 0.5, tmp_path / "new/out.safetensors")
    assert list(result.layers["name"]) == ["conv.weight", "fc.weight"]  # by names: embed is none
    assert list(result.layers["kind"]) == ["conv", "linear"]
    loaded = load_file(tmp_path / "new/out.safetensors")
    assert int((loaded["fc.weight"] == 0).sum()) == 12 and int((loaded["embed.weight"] == 0).sum()) == 0
    assert open_checkpoint(tmp_path / "new/out.safetensors").files[0].metadata == {"mine": "yes"}


@pytest.mark.parametrize("allocation", ["uniform", "global", "erk", "lamp"])
@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_masks_are_those_of_make_masks(allocation: str, score: str) -> None:
    weights = {name: value for name, value in state_dict().items() if value.ndim > 1}
    expected = make_masks(weights, 0.7, score=score, allocation=allocation)
    got = masks_of(weights, 0.7, score=score, allocation=allocation)
    assert list(got) == list(expected) and all(torch.equal(got[name], mask) for name, mask in expected.items())


def test_the_report_says_asked_got_and_kept(tmp_path: Path) -> None:
    save_file(state_dict(), tmp_path / "m.safetensors")
    result = prune_checkpoint(tmp_path / "m.safetensors", 0.7, tmp_path / "out.safetensors", allocation="erk")
    table = pd.read_csv(tmp_path / "out.pruning.csv")
    assert list(table.columns) == ["name", "kind", "shape", "dtype", "size", "asked", "got", "kept"]
    assert list(table["size"]) == [108, 25] and set(table["asked"]) == {0.7}
    assert table["kept"].sum() == 133 - round(0.7 * 133) == result.kept
    assert list(table["got"]) == pytest.approx(list(1 - table["kept"] / table["size"]))
    how = json.loads((tmp_path / "out.pruning.json").read_text())
    assert (how["ratio"], how["allocation"], how["score"], how["source"]) == (0.7, "erk", "magnitude", "m.safetensors")


def test_kinds_and_patterns(tmp_path: Path) -> None:
    build("vit").save_pretrained(tmp_path / "in")
    conv = prune_checkpoint(tmp_path / "in", 0.5, tmp_path / "a", choose=LayerChoice(kinds=("conv",))).layers
    assert list(conv["name"]) == ["vit.embeddings.patch_embeddings.projection.weight"]
    some = prune_checkpoint(
        tmp_path / "in", 0.5, tmp_path / "b", choose=LayerChoice(include="*attention*", exclude=["*.q_proj"])
    )
    assert len(some.layers) == 3 and all("attention" in name for name in some.layers["name"])
    with pytest.raises(ValueError, match="matches no prunable weight"):
        prune_checkpoint(tmp_path / "in", 0.5, tmp_path / "c", choose=LayerChoice(include="*atention*"))


@pytest.mark.parametrize(
    ("ratio", "out", "options", "words"),
    [
        (1.0, "out", {}, "fraction removed"),
        (0.5, "in", {}, "never writes there"),
        (0.5, "in/below", {}, "never writes there"),
        (0.5, ".", {}, "holds the checkpoint"),
        (0.5, "full", {}, "is there already"),
        (0.5, "out", {"allocation": "globl"}, "did you mean 'global'"),
        (0.5, "out", {"score": "magnitud"}, "did you mean 'magnitude'"),
        (0.5, "out", {"choose": LayerChoice(kinds=("convs",))}, "did you mean 'conv'"),
    ],
)
def test_refusals(ratio: float, out: str, options: dict, words: str, tmp_path: Path) -> None:
    build("vit").save_pretrained(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=words):
        prune_checkpoint(tmp_path / "in", ratio, tmp_path / out, **options)
    assert contents(tmp_path) == before


def test_wrong_choices_are_said() -> None:
    with pytest.raises(ValueError, match="did you mean 'untie'"):
        LayerChoice(tied="unti")
    with pytest.raises(ValueError, match="choose from auto, class, names"):
        LayerChoice(by="shape")


def test_weights_that_diverged_leave_nothing_behind(tmp_path: Path) -> None:
    state = state_dict()
    state["fc.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"fc\.weight has NaN entries"):
        prune_checkpoint(tmp_path / "m.safetensors", 0.5, tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_failed_write_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build("vit").save_pretrained(tmp_path / "in")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("twore.checkpoints.writing.write_safetensors", fail)
    with pytest.raises(OSError, match="disk full"):
        prune_checkpoint(tmp_path / "in", 0.5, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_infinite_and_negative_zero_entries_become_plain_zero(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.tensor([[-0.0, -1.0], [torch.inf, 2.0]])}, tmp_path / "m.safetensors")
    prune_checkpoint(tmp_path / "m.safetensors", 0.5, tmp_path / "out.safetensors")
    weight = load_file(tmp_path / "out.safetensors")["fc.weight"]
    assert weight.tolist() == [[0, 0], [torch.inf, 2]] and not weight.signbit().any()


def test_a_file_whose_write_fails_leaves_nothing_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state_dict(), tmp_path / "m.safetensors")
    (tmp_path / "out.masks.safetensors").write_text("mine")
    with pytest.raises(ValueError, match=r"out\.masks\.safetensors is there already"):
        prune_checkpoint(tmp_path / "m.safetensors", 0.5, tmp_path / "out.safetensors")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("twore.checkpoints.writing.write_safetensors", fail)
    with pytest.raises(OSError, match="disk full"):
        prune_checkpoint(tmp_path / "m.safetensors", 0.5, tmp_path / "new.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "out.masks.safetensors"]
