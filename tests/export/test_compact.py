"""The compact form: every bit comes back, the size is what the formula says, damage is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import build, contents, logits

from twore.checkpoints import CheckpointError, LayerChoice, open_checkpoint
from twore.export import (
    export_compact,
    export_model,
    export_safetensors,
    layer_weights,
    measure_sizes,
    prune_checkpoint,
    restore_compact,
    restore_model,
)

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.int64,
    torch.uint8, torch.bool,
]  # fmt: skip


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same_bits(one: Path, two: Path) -> bool:
    a, b = open_checkpoint(one), open_checkpoint(two)
    return list(a.tensors) == list(b.tensors) and all(
        a.tensors[name] == b.tensors[name] and bits(a.read(name)) == bits(b.read(name)) for name in a.tensors
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.lists(st.integers(0, 7), max_size=4).map(tuple), max_size=4),
    dtype=st.sampled_from(DTYPES),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_every_bit_comes_back(
    tmp_path: Path, shapes: list[tuple[int, ...]], dtype: torch.dtype, density: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, shape in enumerate(shapes):
        values = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
        tensors[f"layer.{number}"] = values.to(dtype)
    for file in tmp_path.iterdir():
        file.unlink()
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt", "mine": "é"})
    export_compact(tmp_path / "m.safetensors", tmp_path / "c.safetensors")
    restore_compact(tmp_path / "c.safetensors", tmp_path / "r.safetensors")
    assert same_bits(tmp_path / "m.safetensors", tmp_path / "r.safetensors")
    restored = open_checkpoint(tmp_path / "r.safetensors").files[0]
    assert restored.metadata == {"format": "pt", "mine": "é"}
    assert {k: v.dtype for k, v in load_file(tmp_path / "r.safetensors").items()} == dict.fromkeys(tensors, dtype)


def test_negative_zeros_nan_and_infinities_come_back(tmp_path: Path) -> None:
    odd = torch.zeros(64)
    odd[:4] = torch.tensor([-0.0, torch.nan, torch.inf, 1e-45])
    save_file({"odd": odd}, tmp_path / "m.safetensors")
    export_compact(tmp_path / "m.safetensors", tmp_path / "c.safetensors")
    assert "kept:odd" in open_checkpoint(tmp_path / "c.safetensors").tensors  # 4 kept of 64: worth it
    restore_compact(tmp_path / "c.safetensors", tmp_path / "r.safetensors")
    assert same_bits(tmp_path / "m.safetensors", tmp_path / "r.safetensors")


def test_sizes_are_density_plus_a_bit_an_entry(tmp_path: Path) -> None:
    weight = torch.randn(200, 160)
    weight.view(-1)[: 32_000 * 9 // 10] = 0
    for name, dtype, expected in (("f", torch.float32, 0.1 + 1 / 32), ("h", torch.float16, 0.1 + 1 / 16)):
        save_file({"w": weight.to(dtype)}, tmp_path / f"{name}.safetensors")
        export_compact(tmp_path / f"{name}.safetensors", tmp_path / f"{name}.c")
        table = measure_sizes({"safetensors": tmp_path / f"{name}.safetensors", "compact": tmp_path / f"{name}.c"})
        assert list(table.columns) == ["form", "bytes", "share", "zlib", "lzma"]
        assert table["share"].tolist() == pytest.approx([1, expected], abs=0.02)
        assert list(table["bytes"]) == [
            path.stat().st_size for path in (tmp_path / f"{name}.safetensors", tmp_path / f"{name}.c")
        ]
        assert table["zlib"][0] < 0.2 * table["bytes"][0]  # a run of zeros is nothing to a compressor


def test_a_dense_tensor_is_left_as_it_is(tmp_path: Path) -> None:
    save_file({"w": torch.ones(50)}, tmp_path / "m.safetensors")
    export_compact(tmp_path / "m.safetensors", tmp_path / "c.safetensors")
    assert list(open_checkpoint(tmp_path / "c.safetensors").tensors) == ["dense:w"]


def test_a_folder_goes_out_and_comes_back_loadable(tmp_path: Path) -> None:
    model = build("marian", torch.float16)
    model.save_pretrained(tmp_path / "in", max_shard_size="4KB")
    prune_checkpoint(tmp_path / "in", 0.9, tmp_path / "pruned", choose=LayerChoice(tied="skip"))
    before = contents(tmp_path / "pruned")
    exported = export_model(tmp_path / "pruned", tmp_path / "out")
    assert contents(tmp_path / "pruned") == before
    assert sorted(exported.sizes["form"]) == ["compact", "safetensors"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.safetensors", "compact.safetensors", "sizes.csv", "config.json"}
    restore_model(tmp_path / "out", tmp_path / "back")
    pruned = type(model).from_pretrained(tmp_path / "pruned")
    for folder in ("out", "back"):
        loaded = type(model).from_pretrained(tmp_path / folder)
        assert loaded.dtype == torch.float16
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in pruned.state_dict().items())
        assert torch.equal(
            logits("marian", loaded.float()), logits("marian", type(model).from_pretrained(tmp_path / "pruned").float())
        )


def test_only_the_forms_asked_for_stay(tmp_path: Path) -> None:
    save_file({"w": torch.ones(50)}, tmp_path / "m.safetensors")
    exported = export_model(tmp_path / "m.safetensors", tmp_path / "out", forms=["compact"], compressed=False)
    assert sorted(p.name for p in exported.out.iterdir()) == ["compact.safetensors", "sizes.csv"]
    assert list(exported.sizes.columns) == ["form", "bytes", "share"]
    with pytest.raises(ValueError, match="did you mean 'compact'"):
        export_model(tmp_path / "m.safetensors", tmp_path / "other", forms=["compat"])
    with pytest.raises(ValueError, match="overwrites nothing"):
        export_model(tmp_path / "m.safetensors", tmp_path / "out")


def test_a_state_dict_becomes_plain_safetensors(tmp_path: Path) -> None:
    weight = torch.randn(4, 6).T
    torch.save({"state_dict": {"w": weight, "tied": weight, "n": torch.tensor(3)}, "epoch": 1}, tmp_path / "m.pt")
    export_safetensors(tmp_path / "m.pt", tmp_path / "m.safetensors")
    loaded = load_file(tmp_path / "m.safetensors")
    assert sorted(loaded) == ["n", "tied", "w"] and torch.equal(loaded["tied"], weight) and int(loaded["n"]) == 3


def test_layer_weights_turn_transposed_ones(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path / "in")
    shapes = {name.split(".", 3)[-1]: tuple(w.shape) for name, w in layer_weights(tmp_path / "in").items()}
    assert shapes["attn.c_attn.weight"] == (48, 16) and shapes["mlp.c_fc.weight"] == (64, 16)  # (out, in)


@pytest.mark.parametrize("place", ["values", "mask", "header", "end"])
def test_damage_is_found(place: str, tmp_path: Path) -> None:
    weight = torch.zeros(40, 40)
    weight[::5] = torch.randn(8, 40)
    save_file({"w": weight}, tmp_path / "m.safetensors")
    path = export_compact(tmp_path / "m.safetensors", tmp_path / "c.safetensors")
    data = bytearray(path.read_bytes())
    if place == "end":
        data = data[:-30]
    else:
        data[{"values": -1000, "mask": -20, "header": 20}[place]] ^= 16
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        restore_compact(path, tmp_path / "r.safetensors")
    assert not (tmp_path / "r.safetensors").exists()


def test_what_is_no_compact_file_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="not in the compact form"):
        restore_compact(tmp_path / "m.safetensors", tmp_path / "r.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        restore_compact(tmp_path / "nowhere", tmp_path / "r.safetensors")
    with pytest.raises(CheckpointError, match=r"has no compact\.safetensors"):
        restore_model(tmp_path, tmp_path / "out")
