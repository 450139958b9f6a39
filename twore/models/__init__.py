"""The models of the report's studies, and how the translation model translates.

Importing this package does not import transformers (seconds): only building a Transformer does.
"""

from twore.models.decoding import beam_search, greedy
from twore.models.preresnet import PreResNet
from twore.models.transformer import BOS, EOS, PAD, UNK, teacher_forced, transformer_base

__all__ = ["BOS", "EOS", "PAD", "UNK", "PreResNet", "beam_search", "greedy", "teacher_forced", "transformer_base"]
