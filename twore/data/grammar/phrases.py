"""Noun phrases: agreement of article, adjective and noun in gender, number and case; pronouns; prepositions.

Endings: the three declensions of the German adjective (weak after der/dieser/jeder, mixed after ein/kein/mein, strong
without an article). Cases: nom, acc, dat; genders: m, f, n, and p for the plural.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from twore.data.grammar.adjectives import Adjective, number_words
from twore.data.grammar.nouns import Noun

CASES = ("nom", "acc", "dat")
ARTICLES = {  # m f n p
    "nom": "der die das die",
    "acc": "den die das die",
    "dat": "dem der dem den",
}
STRONG = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
EIN_ENDINGS = {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"}
WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
MIXED = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}
RELATIVE_DATIVE = "dem der dem denen"  # the other cases are the article's
CONTRACTIONS = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("von", "dem"): "vom",
}
POSSESSIVES = {"mein": "my", "unser": "our", "sein": "his", "dein": "your"}
SPOUSES = {"Mann": "husband", "Frau": "wife"}  # meine Frau is my wife
AN = ("hour", "honest")  # spoken with a vowel first, written without


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase or a pronoun, ready for a clause."""

    german: tuple[str, str, str]
    """Nominative, accusative, dative."""
    english: str
    english_object: str
    person: int = 3
    plural: bool = False
    kind: str = "person"
    gender: str = "m"
    """m, f, n, or p in the plural."""
    pronoun: bool = False
    definite: bool = True
    negative: bool = False
    """Carries the clause's negation: kein Buch."""
    relative: str = ""
    """A German relative clause with its first comma."""
    relative_english: str = ""

    def case(self, case: str) -> str:
        return self.german[CASES.index(case)]


def _pronoun(german: str, english: str, english_object: str, person: int, *, gender: str = "m") -> Phrase:
    nominative, accusative, dative = german.split()
    plural = gender == "p"
    forms = (nominative, accusative, dative)
    return Phrase(forms, english, english_object, person, plural, gender=gender, pronoun=True)


PRONOUNS = (
    _pronoun("ich mich mir", "I", "me", 1),
    _pronoun("er ihn ihm", "he", "him", 3),
    _pronoun("sie sie ihr", "she", "her", 3, gender="f"),
    _pronoun("wir uns uns", "we", "us", 1, gender="p"),
    _pronoun("du dich dir", "you", "you", 2),
    _pronoun("sie - ihnen", "they", "them", 3, gender="p"),  # no accusative: sie would be her as well as them
    _pronoun("ihr euch euch", "you", "you", 2, gender="p"),
)
IT = {"m": "er", "f": "sie", "n": "es"}  # a thing's pronoun has its gender


def name_phrase(name: str, gender: str) -> Phrase:
    return Phrase((name, name, name), name, name, gender=gender)


@lru_cache(maxsize=4096)  # the frequent ones; drawing a corpus takes half the time
def noun_phrase(noun: Noun, determiner: str, *, plural: bool = False, adjective: Adjective | None = None) -> Phrase:
    """A phrase with its article and adjective.

    determiner: der, ein, kein, dies, jed, viele, einige, etwas, none, a possessive (mein, ...), or a number as digits.
    ein without a noun's singular, and none, write no article: alte Bücher, old books.
    """
    gender = "p" if plural else noun.gender
    column = "mfnp".index(gender)
    forms = []
    for case in CASES:
        words = [_determiner(determiner, case, column)]
        if adjective:
            words.append(adjective.stem + _endings(determiner, plural)[case].split()[column])
        words.append(noun.form(case, plural))
        forms.append(" ".join(word for word in words if word))
    core = f"{adjective.english} " if adjective else ""
    spouse = SPOUSES.get(noun.german) if determiner in ("mein", "dein", "sein") and not plural else None
    core += spouse or noun.english_form(plural)
    single = not plural and not noun.mass
    return Phrase(
        (forms[0], forms[1], forms[2]),
        _english(determiner, core, plural=plural, single=single, subject=True),
        _english(determiner, core, plural=plural, single=single, subject=False),
        plural=plural,
        kind=noun.kind,
        gender=gender,
        definite=determiner in ("der", "dies", "jed", *POSSESSIVES),
        negative=determiner == "kein",
    )


def _determiner(determiner: str, case: str, column: int) -> str:
    if determiner == "der":
        return ARTICLES[case].split()[column]
    if determiner in ("dies", "jed"):
        return determiner + STRONG[case].split()[column]
    if determiner == "ein" and column < 3 or determiner == "kein" or determiner in POSSESSIVES:
        return determiner + EIN_ENDINGS[case].split()[column].strip("-")
    if determiner in ("viele", "einige"):
        return determiner + ("n" if case == "dat" else "")
    if determiner.isdigit():
        return number_words(int(determiner))[0]
    return "etwas" if determiner == "etwas" else ""


def _endings(determiner: str, plural: bool) -> dict[str, str]:
    if determiner in ("der", "dies", "jed"):
        return WEAK
    if determiner == "kein" or determiner in POSSESSIVES or determiner == "ein" and not plural:
        return MIXED
    return STRONG


def _english(determiner: str, core: str, *, plural: bool, single: bool, subject: bool) -> str:
    """`core` with its English article; kein is `no` before the verb, and `not ... a` or `not ... any` after it."""
    if determiner == "ein" and single or determiner == "kein" and single and not subject:
        return with_article(core)
    words = {
        "der": "the",
        "dies": "these" if plural else "this",
        "jed": "every",
        "kein": "no" if subject else "any",
        "viele": "many",
        "einige": "some",
        "etwas": "some",
        **POSSESSIVES,
    }
    word = number_words(int(determiner))[1] if determiner.isdigit() else words.get(determiner, "")
    return f"{word} {core}".strip()


def with_article(core: str) -> str:
    """a or an."""
    return f"{'an' if core[0] in 'aeiou' or core.startswith(AN) else 'a'} {core}"


def prepositional(preposition: str, case: str, phrase: Phrase) -> str:
    """The preposition with its phrase, contracted with a definite article: in dem Garten -> im Garten."""
    words = phrase.case(case).split()
    short = CONTRACTIONS.get((preposition, words[0]))
    return " ".join([short, *words[1:]] if short and len(words) > 1 else [preposition, *words])


def relative_pronoun(gender: str, case: str) -> str:
    table = RELATIVE_DATIVE if case == "dat" else ARTICLES[case]
    return table.split()["mfnp".index(gender)]
