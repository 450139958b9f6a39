"""Scores of translations: sacreBLEU and chrF on detokenised text, and a BLEU like that of the report's authors.

    score           corpus BLEU, 0-100, sacreBLEU's defaults (13a tokenisation); Post 2018
    chrf            chrF2, 0-100; Popovic 2015
    legacy_bleu     corpus BLEU, 0-100, on words and punctuation marks apart, no further tokenisation (`tok:none`): our
                    approximation of the authors' nltk BLEU on spaCy tokens, so that their numbers can be compared at all
    bleu_signature  how `score` was made, in sacreBLEU's words, its version included
"""

from __future__ import annotations

import re
from collections.abc import Sequence

TOKEN = re.compile(r"\w+|[^\w\s]")  # a word or one punctuation mark


def translation_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """The scores of translations against one reference each; an empty translation is allowed.

    ValueError for unequal counts and for no sentence at all.

    >>> translation_scores(["The cat sat down here."], ["The cat sat down here."])["score"]
    100.0
    """
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"a translation for each reference is needed: got {len(hypotheses)} translations, {len(references)} references"
        )
    from sacrebleu.metrics import BLEU, CHRF  # a second of import

    bleu = BLEU(force=True)  # force: no warning about text that ends in " ."
    score = bleu.corpus_score(list(hypotheses), [list(references)])
    words = [[" ".join(TOKEN.findall(text)) for text in side] for side in (hypotheses, references)]
    legacy = BLEU(tokenize="none", force=True).corpus_score(words[0], [words[1]])
    chrf = CHRF().corpus_score(list(hypotheses), [list(references)])
    return {
        "score": _rounded(score.score),
        "chrf": _rounded(chrf.score),
        "legacy_bleu": _rounded(legacy.score),
        "bleu_signature": str(bleu.get_signature()),
    }


def _rounded(value: float) -> float:
    return round(float(value), 10)  # 100 is 100.00000000000004 before
