"""The model class of a Hugging Face folder, without its weights: built on the meta device from config.json.

It tells what names and shapes cannot: which weights are linear layers, convolutions or embeddings, and which are tied.
Only classes of the installed transformers are built; code that a folder brings along is never run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from twore.checkpoints.errors import CheckpointError


def model_class(folder: Path) -> tuple[Any, Any]:
    """(config, class) of a folder. CheckpointError when transformers does not know them."""
    import transformers  # seconds of import: only folders need it
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ImportError, ValueError, OSError, LookupError, TypeError, AttributeError, StrictDataclassError) as error:
        # ImportError: of a package that the class wants, such as timm
        raise CheckpointError(
            f"{folder}/config.json is of no model that the installed transformers knows: "
            'tell layers by names and shapes, --layers names (LayerChoice(by="names"))'
        ) from error
    names = getattr(config, "architectures", None) or []
    found = getattr(transformers, str(names[0]), None) if names else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        what = f"architecture {names[0]}, which the installed transformers lacks" if names else "no architecture"
        raise CheckpointError(
            f"{folder}/config.json names {what}: "
            'tell layers by names and shapes, --layers names (LayerChoice(by="names"))'
        )
    return config, found


def meta_model(folder: Path) -> nn.Module:
    """The model of a folder, all parameters on the meta device. CheckpointError when it cannot be built."""
    config, cls = model_class(folder)
    try:
        with torch.device("meta"):
            return cls(config)
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{cls.__name__} of {folder} cannot be built ({reason}): "
            'tell layers by names and shapes, --layers names (LayerChoice(by="names"))'
        ) from error


def weight_groups(model: nn.Module) -> list[tuple[str, ...]]:
    """Every parameter with all the names it goes by; more than one name means tied."""
    groups: dict[int, list[str]] = {}
    for path, module in model.named_modules():  # a module registered twice is one use
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                groups.setdefault(id(parameter), []).append(f"{path}.{attribute}" if path else attribute)
    return [tuple(names) for names in groups.values()]


def break_ties(model: nn.Module) -> None:
    """Give every use of a tied weight a parameter of its own, in place."""
    for names in weight_groups(model):
        for name in names[1:]:
            path, _, attribute = name.rpartition(".")
            module = model.get_submodule(path)
            setattr(module, attribute, nn.Parameter(torch.empty_like(model.get_parameter(name))))


def stored_to_model(model: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """Stored name -> name in the model, for the tensors that are a parameter or buffer of it as they are.

    Folders keep the names that a model had when it was published; transformers renames on loading, and so does this
    (older names, the base model's prefix). A tensor that is merged with others or cut on loading has no entry.
    """
    known = set(model.state_dict())
    rename = _renaming(model)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found: dict[str, str] = {}
    for name in stored:
        new = name if name in known else rename(name)
        if new is not None and new not in known:
            new = next((other for other in (new.removeprefix(prefix), prefix + new) if other in known), None)
        if new is not None:
            found[name] = new
    return found


def _renaming(model: nn.Module) -> Callable[[str], str | None]:
    """Old name -> new name, or None for a tensor that does not map one to one: the rules that from_pretrained uses."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:  # a transformers 5 without renaming rules loads names as they are
        return lambda name: name
    rules = get_model_conversion_mapping(cast(Any, model))

    def rename(name: str) -> str | None:
        for rule in (rule for rule in rules if isinstance(rule, WeightRenaming)):
            name = rule.rename_source_key(name)[0]
        merged = (rule for rule in rules if not isinstance(rule, WeightRenaming))
        return None if any(rule.rename_source_key(name)[1] is not None for rule in merged) else name

    return rename
