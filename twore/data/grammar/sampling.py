"""Random clauses: verb, tense and objects that make sense together, negation, adverbials."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from twore.data.grammar.adjectives import COLOURED
from twore.data.grammar.choosing import (
    adjective,
    adjectives_of,
    adverbials_of,
    direction,
    noun,
    phrase,
    place,
    subject,
    target,
    time,
    verbs_of,
)
from twore.data.grammar.clauses import Clause
from twore.data.grammar.draw import Draw, Weighted, weights
from twore.data.grammar.phrases import Phrase, noun_phrase, prepositional
from twore.data.grammar.verbs import BE, MODALS, Verb

ALL_TENSES = ("pres", "perf", "fut", "mod", "modpast")
TENSE_WEIGHTS = {"pres": 33.0, "perf": 30.0, "fut": 7.0, "mod": 21.0, "modpast": 9.0}
MODAL_WEIGHTS = {"können": 5.0, "müssen": 5.0, "wollen": 5.0, "möchten": 3.0, "sollen": 2.0, "dürfen": 2.0}
MODALS_OF = {  # those that the tense has a form of
    tense: weights((m, w) for m, w in MODAL_WEIGHTS.items() if MODALS[m][past])
    for past, tense in enumerate(("mod", "modpast"))
}
FRAMES = weights((("t", 52.0), ("i", 14.0), ("dt", 9.0), ("d", 7.0), ("p", 7.0), ("dir", 8.0), ("loc", 4.0)))
NEGATED = 0.14
GERN = frozenset(  # what people like to do; only asked for members
    """lesen essen trinken kochen backen schreiben malen fotografieren tragen
    schlafen arbeiten spielen einkaufen singen tanzen lachen schwimmen fernsehen""".split()  # noqa: SIM905
)
DEGREES = weights(((("", ""), 60.0), (("sehr ", "very "), 25.0), (("zu ", "too "), 15.0)))
QUALITY_KINDS = (
    "person",
    "thing",
    "place",
    "clothes",
    "food",
    "vehicle",
    "book",
    "animal",
    "device",
    "furniture",
    "door",
)


def clause(
    draw: Draw,
    tenses: tuple[str, ...] = ALL_TENSES,
    *,
    subject_: Phrase | None = None,
    verb: Verb | None = None,
    copula: float = 0.0,
    timed: float = 0.35,
) -> Clause:
    """A clause in one of the tenses. copula: share of `ist müde`; timed: share with an adverbial of time."""
    if verb is None and draw.chance(copula):
        return copula_clause(draw, tenses, subject_=subject_)
    verb = verb or _verb(draw, tenses, subject_)
    who = subject_ or subject(draw, verb.subjects)
    tense = _tense(draw, tenses, simple=verb.stative)
    modal = draw.weighted(MODALS_OF[tense]) if tense in MODALS_OF else ""
    made = _with_objects(draw, Clause(who, verb, tense, modal))
    return _with_adverbials(draw, _with_negation(draw, made), timed)


def copula_clause(
    draw: Draw, tenses: tuple[str, ...], *, subject_: Phrase | None = None, other_than: str = ""
) -> Clause:
    """X is (very, too) old; `other_than` is an English adjective that was just said."""
    who = subject_ or subject(draw, QUALITY_KINDS, pronouns=0.15)
    choices = adjectives_of(who.kind)
    if choices is None:
        raise ValueError(f"no adjective goes with the kind {who.kind}: add one to ADJECTIVES_TABLE")
    while True:
        quality = draw.weighted(choices)
        if quality.english not in f"{who.english} {who.relative_english} {other_than}":  # not: the old man is old
            break
    absolute = quality.kinds == COLOURED or quality.english == "broken"  # not: too green, very broken
    degree = ("", "") if absolute else draw.weighted(DEGREES)
    negated = not who.negative and not who.english.startswith("every ") and draw.chance(NEGATED)
    tail = degree[0] + quality.german, degree[1] + quality.english
    return Clause(who, BE, _tense(draw, tenses, simple=True), tail=tail, negated=negated)


def _verb(draw: Draw, tenses: tuple[str, ...], subject_: Phrase | None) -> Verb:
    simple = "pres" in tenses or "perf" in tenses
    while True:
        verb = draw.weighted(verbs_of(draw.weighted(FRAMES)))
        if (subject_ is None or subject_.kind in verb.subjects) and (simple or not verb.stative):
            return verb


def _tense(draw: Draw, tenses: tuple[str, ...], *, simple: bool) -> str:
    return draw.weighted(_tenses_of(tenses, simple))


@cache
def _tenses_of(tenses: tuple[str, ...], simple: bool) -> Weighted[str]:
    return weights((t, TENSE_WEIGHTS[t]) for t in tenses if not simple or t in ("pres", "perf"))


def _with_objects(draw: Draw, made: Clause) -> Clause:
    verb, who = made.verb, made.subject
    if verb.frame == "t":
        return replace(made, direct=target(draw, verb, who, "acc"))
    if verb.frame == "d":
        return replace(made, indirect=target(draw, verb, who, "dat"))
    if verb.frame == "dt":
        return replace(made, direct=phrase(draw, verb.objects, "object"), indirect=target(draw, verb, who, "dat"))
    if verb.frame == "p":
        german, case, english = verb.preposition
        about = target(draw, verb, who, case)
        return replace(made, tail=(prepositional(german, case, about), f"{english} {about.english_object}"))
    if verb.frame == "dir":
        return replace(made, tail=direction(draw, verb))
    if verb.frame == "loc":
        where = place(draw)
        return replace(made, tail=(where.german, where.english))
    return made


def _with_negation(draw: Draw, made: Clause) -> Clause:
    """nicht, or kein for an object without a definite article; a clause has one negation."""
    if made.subject.negative or made.subject.english.startswith("every ") or not draw.chance(NEGATED):
        return made
    if made.verb.frame == "d" and made.indirect is not None and not made.indirect.definite:
        return made
    if made.direct is None or made.direct.definite:
        return replace(made, negated=True)
    word = noun(draw, made.verb.objects)
    plural = not word.mass and draw.chance(0.4)
    nothing = noun_phrase(word, "kein", plural=plural, adjective=adjective(draw, word.kind, 0.15))
    return replace(made, direct=nothing, negated=True)


def _with_adverbials(draw: Draw, made: Clause, timed: float) -> Clause:
    verb, tense, direct = made.verb, made.tense, made.direct
    if verb.stative:
        return made
    plain = not made.negated and not made.subject.negative
    activity = (
        verb.frame == "i" or verb.frame == "t" and direct is not None and not (direct.definite or direct.negative)
    )
    if tense == "pres" and verb.infinitive in GERN and activity and draw.chance(0.2):
        return replace(made, gern=True)
    some = direct is not None and direct.english_object.startswith("some ")  # not: never eats some bread
    if plain and not some and tense in ("pres", "perf") and draw.chance(0.08):
        return replace(made, frequency=draw.weighted(adverbials_of("frequency")))
    if draw.chance(timed):
        when = time(draw, tense)
        made = replace(made, time=when if plain or when.category != "habit" else None)  # not: not every day
    indoors = direct is not None and direct.kind == "place"  # not: tidies up the kitchen at the market
    if plain and not indoors and verb.frame in ("t", "i") and draw.chance(0.16):
        made = replace(made, place=place(draw))
    return made
