"""Hugging Face folders: which files hold the weights, which the rest of the model, and which belong to the training.

The order is that of `from_pretrained`: model.safetensors, its sharded form, pytorch_model.bin, its sharded form.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from twore.checkpoints.errors import CheckpointError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)$")
# what makes a folder loadable beside the weights: config, tokenizer, processor, generation settings, chat templates
MODEL_SUFFIXES = {".json", ".txt", ".model", ".spm", ".vocab", ".bpe", ".jinja", ".tiktoken", ".md", ".py"}
TRAINING = {"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json", "requirements.txt"}
MODEL_FOLDERS = {"additional_chat_templates"}


def weight_files(folder: Path) -> tuple[list[Path], Path | None]:
    """(the files that hold the weights, the index when they are shards). CheckpointError when some is missing."""
    for name in WEIGHTS:
        path = folder / name
        if path.is_file():
            return (_shards(path), path) if name.endswith(".json") else ([path], None)
    shards = sorted(path.name for path in folder.iterdir() if SHARD.match(path.name))
    if shards:
        stem = "model.safetensors" if shards[0].endswith(".safetensors") else "pytorch_model.bin"
        raise CheckpointError(f"{folder} holds shards ({shards[0]}, ...) but no {stem}.index.json: copy the index too")
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} holds an adapter, not a model: merge it into its model and save that")
    below = [path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith("checkpoint-")]
    below.sort(key=lambda name: (len(name), name))  # checkpoint-900 before checkpoint-1000
    if below:
        raise CheckpointError(f"{folder} holds no weights itself: name one of its checkpoints, such as {below[-1]}")
    raise CheckpointError(f"{folder} holds no weights: none of {', '.join(WEIGHTS)} is there")


def model_files(folder: Path) -> list[Path]:
    """Config, tokenizer and the like, relative to the folder: what `from_pretrained` needs beside the weights."""
    found = [path for path in folder.iterdir() if path.is_file() and _belongs_to_the_model(path)]
    for name in MODEL_FOLDERS:
        found += [path for path in (folder / name).rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder) for path in found)


def other_files(folder: Path) -> list[str]:
    """Names of what is neither weights nor model (optimizer states, logs, weights in other formats)."""
    weights, index = weight_files(folder)
    known = {path.name for path in weights} | {path.parts[0] for path in model_files(folder)}
    known |= {index.name} if index else set()
    return sorted(path.name for path in folder.iterdir() if path.name not in known and not path.name.startswith("."))


def read_index(index: Path) -> dict[str, str]:
    """Tensor name -> file name, from the index of a sharded checkpoint."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is truncated, or not an index of shards: copy or download it again") from error


def _belongs_to_the_model(path: Path) -> bool:
    return (
        path.suffix in MODEL_SUFFIXES
        and path.name not in TRAINING
        and not path.name.endswith(".index.json")
        and not path.name.startswith(".")
    ) or path.name.startswith("LICENSE")


def _shards(index: Path) -> list[Path]:
    names = sorted(set(read_index(index).values()))
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index} names files outside its folder: it is not an index that transformers wrote")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"{index.parent} lacks {missing[0]}, which {index.name} lists: copy or download it again")
    if not names:
        raise CheckpointError(f"{index} lists no file: copy or download it again")
    return [index.parent / name for name in names]
