"""ONNX, where the model allows it: the whole graph of a Hugging Face folder, zeros included as plain numbers.

Needs the packages onnx and onnxscript (`pip install 'twore[onnx]'`). ONNX files are dense: they are no smaller than
the model, and a runtime gains nothing from the zeros; what they bring is that the model runs without torch.
"""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twore.checkpoints import CheckpointError, check_out, open_checkpoint
from twore.checkpoints.model_class import model_class

TOKENS = 8  # of the example text; its length is left open in the file where the model allows it


def export_onnx(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write the model of a Hugging Face folder to the file `out` (.onnx). Returns the file.

    Text models (input_ids, and decoder_input_ids of encoder-decoders) and image models (pixel_values) are known.
    ValueError, one sentence, when packages are missing, there is no class, or torch cannot export this model.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {' and '.join(missing)}, not installed here: pip install 'twore[onnx]'")
    source, target = Path(path), Path(out)
    checkpoint = open_checkpoint(source)
    if checkpoint.config() is None:
        raise CheckpointError(
            f"{source} has no config.json, and ONNX needs the model's class: export the folder instead"
        )
    check_out(source, target, folder=False)
    _, cls = model_class(source)
    model = cls.from_pretrained(source, local_files_only=True).eval()
    for module in model.modules():  # a cache is no tensor to trace; T5's decoder has a config of its own
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False
    inputs = example_inputs(model)
    free = {name: {d: torch.export.Dim.AUTO for d in range(value.ndim)} for name, value in inputs.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (), target, kwargs=inputs, dynamic_shapes=free, verbose=False)
    except Exception as error:  # noqa: BLE001  what a model's own code raises under tracing is of any type; it is told on
        target.unlink(missing_ok=True)
        raise ValueError(
            f"{cls.__name__} cannot be exported to ONNX by torch {torch.__version__}: {_reason(error)}"
        ) from error
    return target


def example_inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    """A small batch that the model accepts, by the names of its forward(): what the export traces."""
    config: Any = model.config
    main = getattr(model, "main_input_name", "input_ids")
    if main == "pixel_values":
        side = config.image_size
        height, width = (side, side) if isinstance(side, int) else tuple(side)
        return {"pixel_values": torch.zeros(1, config.num_channels, height, width)}
    if main != "input_ids":
        raise ValueError(f"ONNX export knows models of text and images; {type(model).__name__} takes {main}")
    ids = torch.arange(TOKENS).remainder(config.vocab_size).expand(2, TOKENS).contiguous()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**inputs, "decoder_input_ids": ids} if config.is_encoder_decoder else inputs


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first: the exporter wraps it in advice, in colour."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\x1b\[\d+m", "", next(iter(str(error).strip().splitlines()), type(error).__name__))
