"""BLEU and chrF of translations, by sacreBLEU.

The score is corpus BLEU, 0 to 100, on detokenised text with sacreBLEU's default tokenisation 13a (Post 2018); its
signature goes with it into every table. `legacy_bleu` makes the numbers of the report's authors comparable at all.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# References of so many characters in all keep their n-grams: a set is scored again and again. Our choice: the n-grams
# of chrF take about 1 kB a character; longer sets are rare and take far longer to translate than to score.
KEPT_CHARACTERS = 50_000
# A word, a clitic as spaCy and the Penn Treebank split them off (do n't, it 's), or one other sign (hyphens too).
CLITIC = r"(?:'(?:s|m|d|re|ve|ll))(?!\w)"
LEGACY_TOKEN = re.compile(rf"\w+?(?=n't(?!\w))|n't(?!\w)|{CLITIC}|\w+|[^\w\s]", re.IGNORECASE)


def translation_scores(hypotheses: list[str], references: list[str]) -> dict[str, float | str]:
    """Scores of detokenised hypotheses, one reference each. An empty hypothesis is a sentence without a translation.

    Returns score (corpus BLEU, 0 to 100, higher is better), chrf (chrF2, 0 to 100, higher is better), legacy_bleu (0 to
    100; see `legacy_tokens`), and of each its signature, sacreBLEU's version and settings: bleu_signature,
    chrf_signature, legacy_signature. `ValueError` for unequal counts and for no sentence at all.
    """
    if len(hypotheses) != len(references):
        raise ValueError(
            f"a reference for each hypothesis is needed: got {len(hypotheses)} hypotheses, {len(references)} references"
        )
    if not hypotheses:
        raise ValueError("BLEU needs at least one sentence: got none, so check the evaluation set")
    given = tuple(references)
    scorers = _scorers if sum(map(len, given)) <= KEPT_CHARACTERS else _scorers.__wrapped__
    bleu, chrf, legacy = scorers(given)
    return {
        "score": bleu.corpus_score(hypotheses, None).score,
        "chrf": chrf.corpus_score(hypotheses, None).score,
        "legacy_bleu": legacy.corpus_score([_legacy_text(text) for text in hypotheses], None).score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
        "legacy_signature": str(legacy.get_signature()),
    }


def legacy_tokens(text: str) -> list[str]:
    """Words and signs, about as spaCy splits English: our approximation of the authors' tokens.

    They scored spaCy's tokens with nltk's `corpus_bleu` (four n-grams, no smoothing). What stays different: their words
    outside the training vocabulary were unknown words, and spaCy has exceptions (abbreviations, units) that this lacks.
    """
    return LEGACY_TOKEN.findall(text)


def _legacy_text(text: str) -> str:
    return " ".join(legacy_tokens(text))


@lru_cache(maxsize=4)
def _scorers(references: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """BLEU, chrF and BLEU of legacy tokens, with the n-grams of these references."""
    from sacrebleu.metrics import BLEU, CHRF  # takes a while to import: only when used

    # force: our sentences are detokenised, and one may end in " ." all the same, which sacreBLEU would warn of.
    words = [[_legacy_text(text) for text in references]]
    return (
        BLEU(force=True, references=[references]),
        CHRF(references=[references]),
        BLEU(force=True, tokenize="none", smooth_method="none", references=words),
    )
