"""Constructions where German and English part most: relative clauses, gefallen, what is counted; and qualities."""

from __future__ import annotations

from dataclasses import replace

from twore.data.grammar.adjectives import ADJECTIVES, number_words
from twore.data.grammar.choosing import (
    adjective,
    definite_phrase,
    noun,
    number,
    place_phrase,
    subject,
    verbs_of,
)
from twore.data.grammar.clauses import Clause, english, german, german_final, join
from twore.data.grammar.draw import Draw, weights
from twore.data.grammar.phrases import IT, PRONOUNS, Phrase, noun_phrase, prepositional, relative_pronoun
from twore.data.grammar.sampling import clause, copula_clause
from twore.data.grammar.verbs import BE, Verb

Pair = tuple[str, str]


def quality(draw: Draw) -> Pair:
    """X is old; X is older than Y; the lamp is old, but it (sie) is beautiful."""
    made = copula_clause(draw, ("pres", "perf"))
    who = made.subject
    if draw.chance(0.4) and not who.pronoun and who.definite and not who.english.startswith("every "):
        compared = _compared(draw, made)
        if compared:
            return german(compared), english(compared)
    if draw.chance(0.4) and not who.plural and who.kind not in ("person", "animal") and who.definite:
        it = Phrase((IT[who.gender],) * 3, "it", "it", gender=who.gender, pronoun=True, kind=who.kind)
        second = copula_clause(draw, (made.tense,), subject_=it, other_than=f"{who.english} {made.tail[1]}")
        return f"{german(made)}, aber {german(second)}", f"{english(made)}, but {english(second)}"
    return german(made), english(made)


def relative(draw: Draw) -> Pair:
    """The man who ...; the book that I ...; the woman I helped: who and whom for people, that for the rest."""
    if draw.chance(0.5):
        head = _head(draw, HEADS)
        if head.kind == "person":
            made = clause(draw, subject_=_with_relative(draw, head), timed=0.0, copula=0.4)
        else:  # not: the ball that is green is white
            made = copula_clause(draw, ("pres", "perf"), subject_=_with_relative(draw, head, roles=("acc",)))
        return german(made), english(made)
    while True:
        made = clause(draw, ("pres", "perf", "fut"), timed=0.0)
        if made.direct is not None and made.indirect is None and made.direct.definite and not made.place:
            break
    head = _with_relative(draw, _head(draw, made.verb.objects))
    made = replace(made, direct=head)
    return german(made), english(made)


def dative_subject(draw: Draw) -> Pair:
    """gefallen, schmecken, gehören: what English makes subject and object changes places."""
    verb = draw.weighted(DATIVE_VERBS)
    what = definite_phrase(draw, (draw.pick(verb.subjects),))
    belongs = verb.infinitive == "gehören"
    who = subject(draw, pronouns=0.4)
    while belongs and who.negative:
        who = subject(draw, pronouns=0.4)
    negated = not who.negative and not who.english.startswith("every ") and draw.chance(0.2)
    subject_, object_ = what.case("nom"), who.case("dat")
    first, last = (object_, subject_) if draw.chance(0.4) else (subject_, object_)
    text = join([first, verb.present(3, what.plural), last, "nicht" * negated])
    if belongs:
        return text, english(Clause(what, verb, "pres", indirect=who, negated=negated))
    return text, english(Clause(who, verb, "pres", direct=what, negated=negated))


def counted(draw: Draw) -> Pair:
    """Ages, prices, and how many there are."""
    kind = draw.weighted(COUNTED)
    if kind == "age":
        who = subject(draw, ("person", "animal"))
        while who.negative:
            who = subject(draw, ("person", "animal"))
        return _measured(Clause(who, BE, "pres"), number(draw), ("Jahre alt", "years old"))
    if kind == "price":
        what = definite_phrase(draw, (draw.pick(("clothes", "book", "thing", "furniture", "device", "vehicle")),))
        price = number(draw) if draw.chance(0.7) else 50 * (2 + draw.pick(range(18)))  # at most 950
        return _measured(Clause(what, COST, "pres"), price, ("Euro", "euros"))
    return _there_is(draw)


def _simple_verb(infinitive: str, english_: str, frame: str, subjects: tuple[str, ...], changed: str = "") -> Verb:
    return Verb(infinitive, "", changed, "", False, english_, "", "", "", frame, True, (), subjects, ("", "", ""))


GOODS = ("clothes", "vehicle", "book", "thing", "furniture", "text", "door")
DATIVE_VERBS = weights(
    (
        (_simple_verb("gefallen", "like", "t", GOODS, "gefäll"), 4),
        (_simple_verb("gehören", "belong to", "d", GOODS), 3),
        (_simple_verb("schmecken", "like", "t", ("food", "drink")), 2),
    )
)
COST = _simple_verb("kosten", "cost", "i", ())
COUNTED = weights((("age", 2), ("price", 2), ("there", 3)))
HEADS = ("person", "thing", "book", "clothes", "vehicle", "person")
POSITIONS = weights(((("auf", "on"), 4), (("unter", "under"), 2), (("neben", "next to"), 2), (("hinter", "behind"), 1)))
# what is somewhere: its kinds, the German verb, and the English after `there is`
BEING = (
    (("thing", "clothes", "book"), "liegen", ("liegt", "liegen"), ""),
    (("furniture", "vehicle", "transport"), "stehen", ("steht", "stehen"), ""),
    (("person",), "warten", ("wartet", "warten"), "waiting"),
)
CLEAR = tuple(p for p in PRONOUNS if p.case("nom") in ("ich", "du", "er", "wir", "ihr"))  # never an accusative too


def _compared(draw: Draw, made: Clause) -> Clause | None:
    """Older than another of its kind; None where no comparative or no other is at hand."""
    who = made.subject
    comparisons = [item.comparative for item in ADJECTIVES if item.comparative and who.kind in item.kinds]
    other = definite_phrase(draw, (who.kind,))
    if not comparisons or other.english.split()[-1] == who.english.split()[-1]:
        return None
    german_more, english_more = draw.pick(comparisons)
    return replace(made, tail=(f"{german_more} als {other.case('nom')}", f"{english_more} than {other.english}"))


def _head(draw: Draw, kinds: tuple[str, ...]) -> Phrase:
    word = noun(draw, (draw.pick(kinds),))
    plural = not word.mass and draw.chance(0.2)
    return noun_phrase(word, "der", plural=plural, adjective=adjective(draw, word.kind, 0.12))


def _with_relative(draw: Draw, head: Phrase, *, roles: tuple[str, ...] = ("nom", "acc", "dat")) -> Phrase:
    """The head with a relative clause, in which it is the subject, the accusative or the dative object."""
    person = head.kind == "person"
    verbs = {
        role: [verb for verb in verbs_of(frame).items if head.kind in verb.objects and not verb.stative]
        for role, frame in (("acc", "t"), ("dat", "d"))
    }
    likely = {"nom": 5.0, "acc": 4.0 * bool(verbs["acc"]), "dat": 2.0 * person}
    role = draw.weighted(weights((role, likely[role]) for role in roles))
    pronoun = relative_pronoun(head.gender, role)
    if role == "nom":
        gap = Phrase((pronoun,) * 3, "who" if person else "that", "", 3, head.plural, head.kind, head.gender)
        if person:
            made = clause(draw, ("perf", "pres", "mod"), subject_=gap, timed=0.1)
        else:
            made = copula_clause(draw, ("pres", "perf"), subject_=gap, other_than=head.english)
        return replace(head, relative=f", {german_final(made, '')}", relative_english=english(made))
    # A noun as the subject only where the relative pronoun cannot be the subject itself: den, dem, denen.
    who = definite_phrase(draw, ("person",)) if head.gender == "m" or role == "dat" else draw.pick(CLEAR)
    made = Clause(who, draw.pick(verbs[role]), draw.pick(("pres", "perf", "perf")))
    text = english(replace(made, verb=replace(made.verb, particle="")))
    text = join(["whom" if person else "that", text, made.verb.particle])
    return replace(head, relative=f", {german_final(made, pronoun)}", relative_english=text)


def _measured(made: Clause, amount: int, unit: Pair) -> Pair:
    words = number_words(amount)
    made = replace(made, tail=(f"{words[0]} {unit[0]}", f"{words[1]} {unit[1]}"))
    return german(made), english(made)


def _there_is(draw: Draw) -> Pair:
    """On the table there are six cups: German says that they lie or stand, English that they are."""
    kinds, verb, finite, doing = draw.pick(BEING)
    word = noun(draw, (draw.pick(kinds),))
    plural = draw.chance(0.8)
    what = noun_phrase(
        word, str(number(draw)) if plural else "ein", plural=plural, adjective=adjective(draw, word.kind)
    )
    if verb == "liegen":
        support = noun(draw, ("furniture",))
        where = noun_phrase(support, "der", adjective=adjective(draw, "furniture"))
        preposition, meaning = draw.weighted(POSITIONS)
    else:
        where = place_phrase(draw)[1]
        preposition, meaning = ("vor", "in front of") if verb == "warten" else ("hinter", "behind")
    text = f"{prepositional(preposition, 'dat', where)} {finite[plural]} {what.case('nom')}"
    there = join(["there", "are" if plural else "is", what.english, doing, meaning, where.english])
    return text, there
