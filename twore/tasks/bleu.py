"""BLEU and chrF of translations, by sacreBLEU.

The score is corpus BLEU, 0 to 100, on detokenised text with sacreBLEU's default tokenisation 13a (Post 2018); its
signature goes with it into every table. `legacy_bleu` makes the numbers of the report's authors comparable at all.
"""

from __future__ import annotations

import re

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
    from sacrebleu.metrics import BLEU, CHRF  # takes a while to import: only when used

    # force: our sentences are detokenised, and one may end in " ." all the same, which sacreBLEU would warn of.
    bleu, chrf = BLEU(force=True), CHRF()
    legacy = BLEU(force=True, tokenize="none", smooth_method="none")
    tokens = [[" ".join(legacy_tokens(text)) for text in texts] for texts in (hypotheses, references)]
    return {
        "score": bleu.corpus_score(hypotheses, [references]).score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "legacy_bleu": legacy.corpus_score(tokens[0], [tokens[1]]).score,
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
