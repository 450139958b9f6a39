"""Which tensors are layers: by the model class, by names and shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from export.tiny_models import build
from safetensors.torch import load_file, save_file

from twore.checkpoints import CheckpointError, LayerChoice, find_layers, open_checkpoint


def layers(path: Path, **choice: object) -> dict[str, tuple[str, ...]]:
    """Layer -> the stored tensors that hold it."""
    found = find_layers(open_checkpoint(path), LayerChoice(**choice))
    return {layer.name: layer.tensors for layer in found.chosen}


def test_stored_names_that_the_class_no_longer_has(tmp_path: Path) -> None:
    """ViT folders keep the names of the published models; the class has others."""
    model = build("vit")
    model.save_pretrained(tmp_path)
    stored = set(load_file(tmp_path / "model.safetensors"))
    found = layers(tmp_path)
    names = {name for name, parameter in model.named_parameters() if parameter.ndim in (2, 4)}
    assert set(found) == names
    assert all(len(tensors) == 1 and tensors[0] in stored for tensors in found.values())
    for name, (tensor,) in found.items():
        assert torch.equal(model.get_parameter(name), load_file(tmp_path / "model.safetensors")[tensor]), name


def test_a_base_model_in_the_folder_of_one_with_a_head(tmp_path: Path) -> None:
    """Names without the prefix that the class with a head has."""
    build("gpt2").save_pretrained(tmp_path)
    state = {
        name.removeprefix("transformer."): value for name, value in load_file(tmp_path / "model.safetensors").items()
    }
    save_file(state, tmp_path / "model.safetensors")
    found = layers(tmp_path, tied="skip")
    assert found["transformer.h.0.attn.c_attn.weight"] == ("h.0.attn.c_attn.weight",) and len(found) == 4


def test_kinds_shapes_and_transposition(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path / "gpt2")
    build("vit").save_pretrained(tmp_path / "vit")
    found = find_layers(open_checkpoint(tmp_path / "gpt2"), LayerChoice(tied="prune")).chosen
    assert {layer.name.rpartition(".")[0]: layer.transposed for layer in found} == {
        "transformer.h.0.attn.c_attn": True, "transformer.h.0.attn.c_proj": True, "transformer.h.0.mlp.c_fc": True,
        "transformer.h.0.mlp.c_proj": True, "transformer.wte": False,
    }  # fmt: skip
    kinds = [layer.kind for layer in find_layers(open_checkpoint(tmp_path / "vit")).chosen]
    assert kinds.count("conv") == 1 and kinds.count("linear") == 7


def test_two_stored_copies_that_differ_are_not_tied(tmp_path: Path) -> None:
    """As T5 version 1.1: the config says tied, the folder has a prediction layer of its own, transformers loads it."""
    build("t5").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "lm_head.weight": state["shared.weight"] + 1}, tmp_path / "model.safetensors")
    assert layers(tmp_path)["lm_head.weight"] == ("lm_head.weight",)
    loaded = hf.T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert not torch.equal(loaded.lm_head.weight, loaded.shared.weight)
    save_file({**state, "lm_head.weight": state["shared.weight"].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="is tied to"):
        layers(tmp_path)
    assert layers(tmp_path, tied="prune")["shared.weight"] == ("shared.weight", "lm_head.weight")
    assert layers(tmp_path, tied="untie")["lm_head.weight"] == ("lm_head.weight",)


def test_names_and_shapes_alone(tmp_path: Path) -> None:
    shapes = {
        "conv1.weight": (4, 3, 3, 3), "patch_embed.proj.weight": (4, 3, 2, 2), "audio.0.weight": (4, 3, 5),
        "fc.weight": (4, 4), "attn.in_proj_weight": (12, 4), "mlp.shared_expert.up.weight": (4, 4),
        "fc.bias": (4,), "bn.weight": (4,), "cls_token": (1, 1, 4), "pos_embed": (1, 9, 4), "wte.weight": (9, 4),
        "transformer.wpe.weight": (9, 4), "shared.weight": (9, 4), "encoder.embed_tokens.weight": (9, 4),
        "word_embeddings.weight": (9, 4), "block.relative_attention_bias.weight": (9, 4), "norm.weight": (4, 4),
        "running": (4, 4),
    }  # fmt: skip
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "m.safetensors")
    found = find_layers(open_checkpoint(tmp_path / "m.safetensors")).chosen
    assert {layer.name: layer.kind for layer in found} == {
        "conv1.weight": "conv", "patch_embed.proj.weight": "conv", "audio.0.weight": "conv", "fc.weight": "linear",
        "attn.in_proj_weight": "linear", "mlp.shared_expert.up.weight": "linear",
    }  # fmt: skip
    assert set(layers(tmp_path / "m.safetensors", kinds="linear", exclude="mlp.*")) == {
        "fc.weight",
        "attn.in_proj_weight",
    }
    with pytest.raises(ValueError, match="did you mean 'fc.weight'"):
        layers(tmp_path / "m.safetensors", include="fd.weight")
    with pytest.raises(ValueError, match="matches no tensor"):
        layers(tmp_path / "m.safetensors", exclude="nope")
    with pytest.raises(ValueError, match="no conv layer is left"):
        layers(tmp_path / "m.safetensors", kinds=("conv",), exclude=["conv1", "patch_embed.proj", "audio*"])


def test_names_agree_with_the_class_on_folders(tmp_path: Path) -> None:
    for name in ("t5", "bert", "gpt2", "marian", "vit"):
        build(name).save_pretrained(tmp_path / name)
        by_class, by_names = (layers(tmp_path / name, tied="skip", by=by) for by in ("class", "names"))
        assert sorted(t for (t,) in by_class.values()) == sorted(by_names), name


def test_a_config_of_something_else(tmp_path: Path) -> None:
    build("vit").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, words in (
        ({"architectures": ["NoSuchModel"]}, "architecture NoSuchModel"),
        ({"architectures": None}, "no architecture"),
        ({"architectures": ["pipeline"]}, "architecture pipeline"),  # of transformers, but no model
        ({"hidden_size": "wide"}, "no model that"),
        ({"hidden_act": "none-known"}, "cannot be built"),
        ({"model_type": "nothing-known"}, "no model that"),
        ({"intermediate_size": 48}, "config.json is of another model"),
        ({"num_hidden_layers": 3}, "stores no tensor for"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}}, "no model that"),  # its code is not run
    ):
        path.write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=words) as error:
            layers(tmp_path)
        assert len(str(error.value).splitlines()) == 1
    assert len(layers(tmp_path, by="names")) == 8  # the way out
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is truncated"):
        layers(tmp_path)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    build("vit").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "classifier.weight"
    save_file({**state, name: state[name].to(torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"classifier\.weight is quantised"):
        layers(tmp_path)
