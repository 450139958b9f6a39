"""Random words and phrases: nouns with articles and adjectives, objects, places, directions, times, numbers."""

from __future__ import annotations

from functools import cache

from twore.data.grammar.adjectives import ADJECTIVES, ADVERBIALS, TENSES, Adjective, Adverbial, number_words
from twore.data.grammar.draw import Draw, Weighted, weights, zipf, zipf_weight
from twore.data.grammar.nouns import CITIES, COMPOUND_NOUNS, NAMES, PLACE_PREPOSITIONS, SIMPLE_NOUNS, Noun
from twore.data.grammar.phrases import PRONOUNS, Phrase, name_phrase, noun_phrase, prepositional
from twore.data.grammar.verbs import VERBS, Verb

COMPOUND_SHARE = 0.16  # of the nouns of a kind with many compounds
ADJECTIVE_SHARE = 0.25
PRONOUN_SUBJECTS = 0.28
PRONOUN_OBJECTS = 0.25
PAST = ("perf", "modpast")
TRAVEL = ("Stadt", "Bahnhof", "Dorf", "Strand", "Flughafen", "Museum", "Supermarkt", "Stadtpark", "Krankenhaus")
SMALL_NUMBERS = zipf(range(2, 13))
DETERMINERS = {
    "subject": weights((("der", 60), ("mein", 8), ("unser", 5), ("sein", 4), ("dein", 4), ("dies", 8), ("jed", 4),
                        ("ein", 4), ("kein", 2))),
    "subject plural": weights((("der", 60), ("dies", 10), ("mein", 6), ("unser", 6), ("viele", 7), ("einige", 5),
                               ("number", 6))),
    "subject mass": weights((("der", 80), ("dies", 10), ("mein", 10))),
    "object": weights((("der", 42), ("ein", 36), ("mein", 6), ("unser", 4), ("sein", 4), ("dein", 3), ("dies", 6))),
    "object plural": weights((("der", 32), ("ein", 16), ("viele", 8), ("einige", 6), ("mein", 4), ("unser", 3),
                              ("dies", 6), ("number", 24))),
    "object mass": weights((("none", 66), ("der", 20), ("etwas", 14))),
    "definite": weights((("der", 80), ("dies", 8), ("unser", 7), ("mein", 5))),
}  # fmt: skip


@cache
def nouns_of(kinds: tuple[str, ...], compounds: bool) -> Weighted[Noun] | None:
    """The nouns of these kinds, or of these names (capitalised), with their weights."""
    found = COMPOUND_NOUNS if compounds else SIMPLE_NOUNS
    groups = [[noun for noun in found if noun.kind == kind] for kind in kinds if kind[0].islower()]
    groups.append([noun for noun in found if noun.german in kinds])
    pairs = [(noun, zipf_weight(rank)) for group in groups for rank, noun in enumerate(group)]
    return weights(pairs) if pairs else None


@cache
def verbs_of(frame: str) -> Weighted[Verb]:
    return zipf(VERBS[frame])


@cache
def adjectives_of(kind: str) -> Weighted[Adjective] | None:
    found = [adjective for adjective in ADJECTIVES if kind in adjective.kinds]
    return zipf(found) if found else None


@cache
def adverbials_of(category: str) -> Weighted[Adverbial]:
    return zipf(ADVERBIALS[category])


@cache
def kinds_of(kinds: tuple[str, ...]) -> Weighted[str]:
    return zipf(kinds)


@cache
def _objects(case: str, person: int) -> Weighted[Phrase]:
    """Object pronouns beside a subject of this person: never its own, except in the third."""
    return zipf(p for p in PRONOUNS if p.case(case) != "-" and (p.person != person or person == 3))


_SUBJECTS = zipf(PRONOUNS)
_NAMES = zipf(name_phrase(*name) for name in NAMES)
_CITIES = zipf(CITIES)
_UNITS = zipf((("Tagen", "days"), ("Wochen", "weeks"), ("Jahren", "years")))


def noun(draw: Draw, kinds: tuple[str, ...]) -> Noun:
    compounds, simple = nouns_of(kinds, True), nouns_of(kinds, False)
    share = (
        min(COMPOUND_SHARE, 0.02 * len(compounds.items) - 0.015) if compounds else 0.0
    )  # a lonely compound is a rare noun
    if compounds and (not simple or draw.chance(share)):
        return draw.weighted(compounds)
    if simple is None:
        raise ValueError(f"no noun is of the kinds or names {', '.join(kinds)}: correct the verb's row")
    return draw.weighted(simple)


def adjective(draw: Draw, kind: str, share: float = ADJECTIVE_SHARE) -> Adjective | None:
    choices = adjectives_of(kind)
    return draw.weighted(choices) if choices and draw.chance(share) else None


def number(draw: Draw, small: float = 0.5) -> int:
    """2 to 12 with probability `small`, else 13 to 99."""
    return draw.weighted(SMALL_NUMBERS) if draw.chance(small) else 13 + draw.pick(range(87))


def phrase(draw: Draw, kinds: tuple[str, ...], role: str, *, plural: bool | None = None) -> Phrase:
    """A noun with its article; role: subject or object."""
    word = noun(draw, kinds)
    plural = draw.chance(0.28) if plural is None else plural
    plural = plural and not word.mass
    determiner = draw.weighted(DETERMINERS[f"{role} mass" if word.mass else f"{role} plural" if plural else role])
    if determiner == "number":
        determiner = str(number(draw, 0.9))
    return noun_phrase(word, determiner, plural=plural, adjective=adjective(draw, word.kind))


def subject(draw: Draw, kinds: tuple[str, ...] = ("person",), *, pronouns: float = PRONOUN_SUBJECTS) -> Phrase:
    if kinds[0] == "person":
        if draw.chance(pronouns):
            return draw.weighted(_SUBJECTS)
        if draw.chance(0.14):
            return draw.weighted(_NAMES)
    return phrase(draw, (draw.weighted(kinds_of(kinds)),), "subject")


def definite_phrase(draw: Draw, kinds: tuple[str, ...]) -> Phrase:
    """der, mein or dieser, one or several."""
    word = noun(draw, kinds)
    plural = draw.chance(0.25) and not word.mass
    determiner = draw.weighted(DETERMINERS["definite"])
    return noun_phrase(word, determiner, plural=plural, adjective=adjective(draw, word.kind))


def target(draw: Draw, verb: Verb, of: Phrase, case: str) -> Phrase:
    """An object of the verb beside the subject `of`; a pronoun only for people, and never the subject's noun again."""
    receiver = verb.frame == "dt" and case == "dat"
    while True:
        found = _target(draw, receiver or "person" in verb.objects, ("person",) if receiver else verb.objects, of, case)
        if found.pronoun or found.english.split()[-1] != of.english.split()[-1]:
            return found


def _target(draw: Draw, person: bool, kinds: tuple[str, ...], of: Phrase, case: str) -> Phrase:
    if person and draw.chance(PRONOUN_OBJECTS):
        return draw.weighted(_objects(case, of.person))
    if person and draw.chance(0.1):
        return draw.weighted(_NAMES)
    return phrase(draw, kinds, "object")


def place_phrase(draw: Draw, names: tuple[str, ...] = ("place",)) -> tuple[Noun, Phrase]:
    word = noun(draw, names)
    return word, noun_phrase(word, draw.weighted(DETERMINERS["definite"]), adjective=adjective(draw, "place", 0.2))


def place(draw: Draw) -> Adverbial:
    """Where: im Garten, in Berlin, zu Hause."""
    if draw.chance(0.12):
        return Adverbial("zu Hause", "at home", "place")
    if draw.chance(0.12):
        german, english = draw.weighted(_CITIES)
        return Adverbial(f"in {german}", f"in {english}", "place")
    word, where = place_phrase(draw)
    preposition, english, *_ = PLACE_PREPOSITIONS[word.german]
    return Adverbial(prepositional(preposition, "dat", where), f"{english} {where.english}", "place")


def direction(draw: Draw, verb: Verb) -> tuple[str, str]:
    """Whither: in den Garten, zum Bahnhof, nach Hause; with fahren also by what: mit dem Bus."""
    by = ("", "")
    travels = verb.infinitive == "fahren"
    if travels and draw.chance(0.5):
        vehicle = noun(draw, ("transport", "Auto", "Fahrrad", "Boot"))
        by = f"{prepositional('mit', 'dat', noun_phrase(vehicle, 'der'))} ", f" by {vehicle.english}"
    if draw.chance(0.15):
        return f"{by[0]}nach Hause", f"home{by[1]}"
    if travels and draw.chance(0.3):
        german, english = draw.weighted(_CITIES)
        return f"{by[0]}nach {german}", f"to {english}{by[1]}"
    word, where = place_phrase(draw, TRAVEL if travels else ("place",))
    *_, preposition, english = PLACE_PREPOSITIONS[word.german]
    case = "dat" if preposition == "zu" else "acc"
    return f"{by[0]}{prepositional(preposition, case, where)}", f"{english} {where.english}{by[1]}"


def time(draw: Draw, tense: str) -> Adverbial:
    """When: one that goes with the tense; vor drei Tagen for the past, in drei Tagen for what is to come."""
    if tense != "pres" and draw.chance(0.18):
        german, english = number_words(number(draw, 0.7))
        unit, unit_english = draw.weighted(_UNITS)
        if tense in PAST:
            return Adverbial(f"vor {german} {unit}", f"{english} {unit_english} ago", "past")
        return Adverbial(f"in {german} {unit}", f"in {english} {unit_english}", "future")
    if draw.chance(0.1):
        german, english = number_words(2 + draw.pick(range(11)))
        return Adverbial(f"um {german} Uhr", f"at {english} o'clock", "point")
    return draw.weighted(adverbials_of(draw.pick(_categories(tense))))


@cache
def _categories(tense: str) -> tuple[str, ...]:
    return tuple(name for name, tenses in TENSES.items() if tense in tenses)
