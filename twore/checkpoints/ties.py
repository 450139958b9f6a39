"""The config of a model whose prediction layer was untied.

transformers 5 loads two stored copies that differ as separate weights, whatever the config says (with a warning).
Where the flag `tie_word_embeddings` can say it truly, it is set to false, which silences the warning and holds for
older versions too. It is left alone where false would untie more than this pair (Marian, BERT), or mean something else
(T5, where it changes the scale of the logits).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twore.checkpoints.model_class import meta_model, weight_groups
from twore.checkpoints.opening import Checkpoint

FLAG = "tie_word_embeddings"


def untied_config(checkpoint: Checkpoint, groups: Sequence[tuple[str, ...]]) -> dict | None:
    """config.json with the flag set to false, or None when it must stay as it is.

    groups: every parameter of the tied model with all its names.
    """
    tied = [group for group in groups if len(group) > 1]
    config = checkpoint.config()
    if config is None or len(tied) != 1 or len(tied[0]) != 2:
        return None
    changed = {**config, FLAG: False}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(changed))
        untied = meta_model(Path(folder))
    return changed if all(len(group) == 1 for group in weight_groups(untied)) else None
