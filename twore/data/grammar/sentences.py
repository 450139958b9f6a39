"""Whole sentences and their shares: main clauses, questions, subordinate clauses, infinitives with zu, coordination.

The other constructions stand in `special.py`: relative clauses, qualities, numbers, verbs whose subject English turns
into an object.
"""

from __future__ import annotations

from dataclasses import replace

from twore.data.grammar.choosing import PAST, subject, verbs_of
from twore.data.grammar.clauses import (
    Clause,
    english,
    english_infinitive,
    english_question,
    german,
    german_final,
    german_zu,
    join,
)
from twore.data.grammar.draw import Draw, weights
from twore.data.grammar.phrases import Phrase
from twore.data.grammar.sampling import ALL_TENSES, clause
from twore.data.grammar.special import counted, dative_subject, quality, relative
from twore.data.grammar.verbs import VERBS, Verb

Pair = tuple[str, str]
NOW = ("pres", "mod")
WORDS = (4, 16)  # fewest and most words a side


def sentence(draw: Draw) -> Pair:
    """One (German, English) sentence of 4 to 16 words each, with its capital and its final mark."""
    while True:
        german_text, english_text = draw.weighted(CONSTRUCTIONS)(draw)
        pair = _finish(german_text), _finish(english_text)
        if all(WORDS[0] <= len(text.split()) <= WORDS[1] for text in pair):
            return pair


def main_clause(draw: Draw) -> Pair:
    """A clause with its subject, an adverbial or an object in front of the verb."""
    made = clause(draw)
    fronts = [("subject", 42.0)]
    fronts += [("time", 40.0)] if made.time else []
    fronts += [("place", 15.0)] if made.place else []
    fronts += [("frequency", 40.0)] if made.frequency and made.frequency.german in ("oft", "manchmal") else []
    for role, case, object_ in (("direct", "acc", made.direct), ("indirect", "dat", made.indirect)):
        if object_ and not object_.pronoun and object_.definite and _clear(made.subject, object_, case):
            fronts.append((role, 12.0))
    front = draw.weighted(weights(fronts))
    stays = front in ("subject", "direct", "indirect")  # English keeps its order where German moves an object
    return german(made, front=front), english(made, front="" if stays else front)


def reported(draw: Draw) -> Pair:
    """I believe that ...; he asked whether ...: verb-final, tenses in step."""
    past = draw.chance(0.3)
    verb = draw.weighted(PAST_REPORTS if past else REPORTS)
    whether = verb.infinitive in ("fragen", "wissen")
    matrix = Clause(subject(draw, pronouns=0.5), verb, "perf" if past else "pres", negated=verb.infinitive == "wissen")
    if matrix.subject.negative:
        matrix = replace(matrix, negated=False)
    inner = clause(draw, PAST if past else ALL_TENSES, copula=0.15, timed=0.2)
    if whether and inner.negated:
        inner = replace(clause(draw, PAST if past else ALL_TENSES, copula=1.0), negated=False)
    opener, meaning = ("ob", "whether") if whether else ("dass", "that")
    return f"{german(matrix)}, {german_final(inner, opener)}", f"{english(matrix)} {meaning} {english(inner)}"


def reason(draw: Draw) -> Pair:
    """because, although, while, when; after the main clause or before it."""
    past = draw.chance(0.4)
    opener = draw.weighted(PAST_REASONS if past else REASONS)
    fixed = {"als": ("perf",), "während": ("pres",)}
    if opener[0] in fixed:  # two events at a time
        tenses = fixed[opener[0]]
        outer, inner = _eventful(draw, tenses, negation=True), _eventful(draw, tenses, negation=False)
        return _combine(draw, outer, inner, opener)
    inner = clause(draw, PAST if past else NOW, copula=0.25, timed=0.05)
    return _combine(draw, clause(draw, PAST if past else NOW, timed=0.1), inner, opener)


def condition(draw: Draw) -> Pair:
    """if, as soon as, before, until: the present in the clause, will in the main clause."""
    opener = draw.weighted(CONDITIONS)
    inner = _eventful(draw, ("pres", "mod") if opener[0] == "wenn" else ("pres",), negation=opener[0] == "wenn")
    outer = _eventful(draw, NOW, negation=True, verb=draw.pick(LASTING) if opener[0] == "bis" else None)
    return _combine(draw, outer, inner, opener, aspects=("will", "simple"), outer_first=opener[0] == "bis")


def infinitive(draw: Draw) -> Pair:
    """um ... zu, versuchen, vergessen, Es ist wichtig: the infinitive at the end, zu inside separable verbs."""
    inner = _eventful(draw, ("pres",), negation=False)
    while inner.subject.kind not in ("person", "animal"):  # not: the train tries
        inner = _eventful(draw, ("pres",), negation=False)
    kind = draw.weighted(INFINITIVES)
    if kind == "um":
        inner = replace(inner, place=None)
        verb = draw.weighted(verbs_of("dir"))
        outer = replace(clause(draw, ("pres", "perf"), subject_=inner.subject, verb=verb, timed=0.2), negated=False)
        return f"{german(outer)}, {german_zu(inner, 'um')}", f"{english(outer)} {english_infinitive(inner)}"
    if kind in IT_IS:
        return f"es ist {kind}, {german_zu(inner)}", f"it is {IT_IS[kind]} {english_infinitive(inner)}"
    tense = "perf" if kind == "vergessen" or draw.chance(0.4) else "pres"
    outer = Clause(inner.subject, TRY if kind == "versuchen" else VERB["vergessen"], tense)
    return f"{german(outer)}, {german_zu(inner)}", f"{english(outer)} {english_infinitive(inner)}"


def question(draw: Draw) -> Pair:
    """Yes or no, when, why, where; who, what, whom and to whom, which leave a gap behind."""
    made = clause(draw, timed=0.15)
    while made.subject.negative or made.frequency and made.frequency.german in ("nie", "selten"):
        made = clause(draw, timed=0.15)
    opener = draw.weighted(weights(_openers(made)))
    if opener == "Wer":
        made = replace(made, subject=Phrase(("Wer",) * 3, "who", "whom"))
        return german(made) + "?", english(made) + "?"
    verb, indirect, end = made.verb, made.indirect, ""
    if opener in ("Was", "Wen"):
        made, end = replace(made, direct=None, verb=replace(verb, particle="")), verb.particle
    elif opener == "Wem":
        made, end = replace(made, indirect=None), verb.preposition[2]
    text = german(made, front=opener) + "?"
    if opener == "Was" and indirect:  # What are you giving to the child?
        made, end = replace(made, indirect=None), f"{verb.preposition[2]} {indirect.english_object}"
    made = replace(made, tail=("", join([end, made.tail[1]])))
    return text, english_question(made, opener=OPENERS[opener]) + "?"


def coordinated(draw: Draw) -> Pair:
    """Two main clauses with und, aber or denn."""
    tenses = NOW if draw.chance(0.55) else PAST
    first, second = (clause(draw, tenses, copula=0.1, timed=0.05) for _ in range(2))
    german_word, english_word = draw.pick(((" und", " and"), (", aber", ", but"), (", denn", " because")))
    return f"{german(first)}{german_word} {german(second)}", f"{english(first)}{english_word} {english(second)}"


def _reporter(infinitive: str, participle: str, english_: str, past: str) -> Verb:
    return Verb(infinitive, "", "", participle, False, english_, past, "", "", "i", True, (), (), ("", "", ""))


SAY = _reporter("sagen", "gesagt", "say", "said")
REPORTS = weights(
    (
        (_reporter("glauben", "geglaubt", "believe", "believed"), 5),
        (SAY, 4),
        (_reporter("hoffen", "gehofft", "hope", "hoped"), 3),
        (_reporter("wissen", "gewusst", "know", "knew"), 3),
    )
)
PAST_REPORTS = weights(
    (
        (SAY, 5),
        (_reporter("fragen", "gefragt", "ask", "asked"), 3),
        (_reporter("hören", "gehört", "hear", "heard"), 2),
    )
)
TRY = replace(_reporter("versuchen", "versucht", "try", "tried"), ing="trying", stative=False)
VERB = {verb.infinitive: verb for verb in VERBS["t"]}
LASTING = tuple(  # what one does until something happens
    verb
    for verb in (*VERBS["i"], *VERBS["loc"], *VERBS["p"])
    if verb.infinitive in ("warten", "schlafen", "arbeiten", "spielen", "singen", "tanzen", "bleiben", "sitzen")
)
REASONS = weights(((("weil", "because"), 6), (("obwohl", "although"), 2), (("während", "while"), 2)))
PAST_REASONS = weights(((("weil", "because"), 5), (("als", "when"), 4), (("obwohl", "although"), 2)))
CONDITIONS = weights(
    ((("wenn", "if"), 6), (("sobald", "as soon as"), 2), (("bevor", "before"), 2), (("bis", "until"), 1))
)
IT_IS = {"wichtig": "important", "schwer": "hard", "leicht": "easy"}
INFINITIVES = weights((("um", 4), ("versuchen", 3), ("vergessen", 2), ("wichtig", 1.5), ("schwer", 1), ("leicht", 1)))
OPENERS = {"": "", "Wann": "when", "Wo": "where", "Warum": "why", "Was": "what", "Wen": "who", "Wem": "who"}
CONSTRUCTIONS = weights(
    (
        (main_clause, 32),
        (reported, 11),
        (reason, 11),
        (condition, 6),
        (relative, 11),
        (question, 11),
        (quality, 4),
        (infinitive, 6),
        (dative_subject, 5),
        (counted, 5),
        (coordinated, 4),
    )
)


def _clear(subject_: Phrase, object_: Phrase, case: str) -> bool:
    """True when case alone tells the object in front from the subject."""
    if object_.case(case) != object_.case("nom"):
        return True
    return subject_.pronoun and subject_.case("nom") in ("ich", "du", "er", "wir", "ihr")


def _eventful(draw: Draw, tenses: tuple[str, ...], *, negation: bool, verb: Verb | None = None) -> Clause:
    """A clause without adverbs of time or frequency, of a verb that is not a state."""
    while True:
        made = clause(draw, tenses, verb=verb, timed=0.0)
        denied = made.negated or made.subject.negative
        if not (made.gern or made.frequency or made.verb.stative or denied and not negation):
            return made


def _combine(
    draw: Draw, outer: Clause, inner: Clause, opener: Pair, *, aspects: Pair = ("", ""), outer_first: bool = False
) -> Pair:
    """The main clause, then the subordinate; or that one in front, and the main clause's verb after its comma."""
    first, second = english(outer, aspect=aspects[0]), english(inner, aspect=aspects[1])
    final = german_final(inner, opener[0])
    if outer_first or draw.chance(0.55):
        return f"{german(outer)}, {final}", f"{first} {opener[1]} {second}"
    return f"{final}, {german(outer, front='')}", f"{opener[1]} {second}, {first}"


def _openers(made: Clause) -> list[tuple[str, float]]:
    """The questions that this clause can answer, and their weights."""
    direct, indirect, frame = made.direct, made.indirect, made.verb.frame
    choices = [("", 4.0)]
    if not (made.verb.stative or made.negated or made.gern or made.frequency or made.time):
        choices += [("Wann", 2.0)] if made.tense != "pres" else []
        choices += [("Wo", 1.5)] if not made.place and frame in ("t", "i") else []
    choices += [("Warum", 2.0)] if not made.gern else []
    if not made.negated:
        choices += [("Was", 3.0)] if direct and direct.kind not in ("person", "animal") else []
        choices += [("Wen", 3.0)] if direct and direct.kind == "person" else []
        choices += [("Wem", 3.0)] if indirect and indirect.kind == "person" else []
    choices += [("Wer", 2.0)] if made.subject.kind == "person" else []
    return choices


def _finish(text: str) -> str:
    """Commas and the final mark in place, and a capital first."""
    text = text.replace(",,", ",").replace(",?", "?").removesuffix(",")
    text = text if text.endswith("?") else text + "."
    return (text[0].upper() + text[1:]).replace("can not ", "cannot ")
