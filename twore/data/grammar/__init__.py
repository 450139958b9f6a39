"""A small grammar of German with its English: what the embedded corpus is drawn from.

`sentences.sentence` draws a pair; `clauses` orders words, `phrases` makes articles, adjectives and nouns agree, `sampling`
chooses words that make sense together; `nouns`, `verbs` and `adjectives` are the lexicon. All of it is our own writing.
"""

from twore.data.grammar.draw import Draw
from twore.data.grammar.sentences import sentence

__all__ = ["Draw", "sentence"]
