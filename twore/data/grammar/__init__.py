"""A small grammar of German with its English: what the embedded corpus is drawn from.

`sentences.sentence` draws a pair; `special` has more constructions, `clauses` orders words, `phrases` makes articles,
adjectives and nouns agree, `sampling` and `choosing` pick words that make sense together; `nouns`, `verbs` and
`adjectives` are the lexicon; `glosses` translates word for word. All of it is our own writing.
"""

from twore.data.grammar.draw import Draw
from twore.data.grammar.sentences import sentence

__all__ = ["Draw", "sentence"]
