"""One clause and its two word orders: German verb-second, verb-first and verb-final; English subject-verb-object.

German middle field (our simplification of the usual tendencies): subject, pronouns, time, frequency, (nicht) gern,
dative, definite accusative, place, indefinite accusative, nicht, object with a preposition or direction or predicate;
then the infinitive, participle or separable prefix; in a subordinate clause the finite verb last. A relative clause of
the object comes after all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twore.data.grammar.adjectives import PRESENT_ASPECT, Adverbial
from twore.data.grammar.phrases import Phrase
from twore.data.grammar.verbs import IRREGULAR, MODALS, PRETERITE, Verb


@dataclass(frozen=True, slots=True)
class Clause:
    subject: Phrase
    verb: Verb
    tense: str
    """pres; perf (war and hatte for sein and haben); fut (werden); mod and modpast (with `modal`)."""
    modal: str = ""
    direct: Phrase | None = None
    indirect: Phrase | None = None
    tail: tuple[str, str] = ("", "")
    """German and English of what is closest to the verb: auf den Bus, nach Hause, sehr müde."""
    time: Adverbial | None = None
    place: Adverbial | None = None
    frequency: Adverbial | None = None
    negated: bool = False
    gern: bool = False


def german(clause: Clause, *, front: str = "subject") -> str:
    """A main clause with `front` (subject, time, place, direct, indirect, frequency) first and the verb second.

    A `front` with a capital letter is itself the first phrase (Wann, Wem); an empty one makes a verb-first question.
    """
    finite, closing, prefix = _verb_forms(clause)
    middle = _middle(clause)
    first = [front] if front[:1].isupper() else [text for role, text in middle if role == front]
    rest = [text for role, text in middle if role != front]
    return join([*first, finite, *rest, *closing, prefix, clause.direct.relative if clause.direct else ""])


def german_final(clause: Clause, opener: str) -> str:
    """A subordinate clause: opener (dass, weil, a relative pronoun), and the finite verb last."""
    finite, closing, prefix = _verb_forms(clause)
    middle = [text for _, text in _middle(clause)]
    return join([opener, *middle, *closing, prefix + finite, clause.direct.relative if clause.direct else ""])


def german_zu(clause: Clause, opener: str = "") -> str:
    """The clause as infinitive with zu, without its subject: um das Fenster aufzumachen."""
    middle = [text for role, text in _middle(clause) if role != "subject"]
    return join([opener, *middle, clause.verb.zu_infinitive])


def english(clause: Clause, *, front: str = "", aspect: str = "") -> str:
    """A statement; `front` time, place or frequency stands first. aspect overrides the present's: simple, will."""
    auxiliary, rest = _verb_group(clause, aspect=aspect, support=clause.negated)
    frequency = clause.frequency.english if clause.frequency and front != "frequency" else ""
    subject = _english_subject(clause)
    first = getattr(clause, front).english if front else ""
    return join([first, subject, auxiliary, "not" * clause.negated, frequency, rest, *_english_end(clause, front)])


def english_question(clause: Clause, *, opener: str = "", end: str = "") -> str:
    """opener: Why, When, Who (then `end` may be what the object leaves behind: to, for)."""
    auxiliary, rest = _verb_group(clause, aspect="", support=True)
    frequency = clause.frequency.english if clause.frequency else ""
    subject = _english_subject(clause)
    after = [*_english_end(clause, ""), end]
    return join([opener, auxiliary, subject, "not" * clause.negated, frequency, rest, *after])


def english_infinitive(clause: Clause) -> str:
    return join(["to", clause.verb.english, *_english_end(clause, "")])


def join(words: Iterable[str]) -> str:
    """The words with single spaces, and commas at the word before."""
    return " ".join(word for word in words if word).replace(" ,", ",")


def _verb_forms(clause: Clause) -> tuple[str, list[str], str]:
    """German finite verb, what closes the clause, and a separated prefix."""
    subject, verb, tense = clause.subject, clause.verb, clause.tense
    index = subject.person - 1 + 3 * subject.plural
    if tense == "pres":
        return verb.present(subject.person, subject.plural), [], verb.prefix
    if tense == "perf":
        if verb.infinitive in PRETERITE:
            return PRETERITE[verb.infinitive].split()[index], [], ""
        return IRREGULAR["sein" if verb.sein else "haben"].split()[index], [verb.participle], ""
    if tense == "fut":
        return IRREGULAR["werden"].split()[index], [verb.infinitive], ""
    return MODALS[clause.modal][tense == "modpast"].split()[index], [verb.infinitive], ""


def _middle(clause: Clause) -> list[tuple[str, str]]:
    """(role, German) in the order of the middle field."""
    direct, indirect = clause.direct, clause.indirect
    accusative = direct.case("acc") if direct else ""
    dative = indirect.case("dat") if indirect else ""
    short_direct, short_indirect = bool(direct and direct.pronoun), bool(indirect and indirect.pronoun)
    definite = bool(direct and direct.definite)
    no = "nicht" if clause.negated and not (direct and direct.negative) else ""
    subject = clause.subject.case("nom") + (f"{clause.subject.relative}," if clause.subject.relative else "")
    fields = [
        ("subject", subject),
        ("direct", accusative if short_direct else ""),
        ("indirect", dative if short_indirect else ""),
        ("time", clause.time.german if clause.time else ""),
        ("frequency", clause.frequency.german if clause.frequency else ""),
        ("gern", f"{no} gern".strip() if clause.gern else ""),
        ("indirect", "" if short_indirect else dative),
        ("direct", accusative if definite and not short_direct else ""),
        ("place", clause.place.german if clause.place else ""),
        ("direct", "" if definite or short_direct else accusative),
        ("nicht", "" if clause.gern else no),
        ("tail", clause.tail[0]),
    ]
    return [(role, text) for role, text in fields if text]


def _english_subject(clause: Clause) -> str:
    return join([clause.subject.english, clause.subject.relative_english])


def _english_end(clause: Clause, front: str) -> list[str]:
    """What follows the English verb: objects and particle, direction, place, time."""
    verb, direct, indirect = clause.verb, clause.direct, clause.indirect
    objects: list[str] = []
    if verb.frame == "dt" and direct:
        given = direct.english_object
        if indirect is None:
            objects = [given]
        elif indirect.pronoun:
            objects = [indirect.english_object, given]
        else:
            objects = [given, verb.preposition[2], indirect.english_object]
    else:
        target = direct or indirect
        if target:
            objects = [target.english_object]
        objects = [*objects, verb.particle] if target and target.pronoun else [verb.particle, *objects]
    if direct:
        objects.append(direct.relative_english)
    place = clause.place.english if clause.place and front != "place" else ""
    time = clause.time.english if clause.time and front != "time" else ""
    return [*objects, clause.tail[1], place, time]


def _verb_group(clause: Clause, *, aspect: str, support: bool) -> tuple[str, str]:
    """(auxiliary, the rest of the verb); support: an auxiliary is needed, for not or a question."""
    subject, verb, tense = clause.subject, clause.verb, clause.tense
    form = "past" if tense in ("perf", "modpast") else "base" if subject.plural or subject.person < 3 else "third"
    if tense in ("mod", "modpast"):
        return _modal_group(clause, form, support=support)
    if clause.gern:
        return _with_support({"base": "like", "third": "likes", "past": "liked"}, form, f"to {verb.english}", support)
    if tense == "fut":
        return "will", verb.english
    if verb.english == "be":
        return _be(subject, past=tense == "perf"), ""
    aspect = "simple" if tense == "perf" else aspect or _aspect(clause)
    if aspect == "will":
        return "will", verb.english
    if aspect == "progressive":
        return _be(subject, past=False), verb.english_finite("ing")
    finite = {"base": verb.english, "third": verb.english_finite("third"), "past": verb.english_finite("past")}
    return _with_support(finite, form, "", support)


def _aspect(clause: Clause) -> str:
    """English of the German present: will, simple or progressive."""
    for adverbial in (clause.time, clause.frequency):
        if adverbial and adverbial.category in PRESENT_ASPECT:
            return PRESENT_ASPECT[adverbial.category]
    return "simple" if clause.verb.stative else "progressive"


def _modal_group(clause: Clause, form: str, *, support: bool) -> tuple[str, str]:
    base, past = clause.verb.english, form == "past"
    if clause.modal == "dürfen":
        return _be(clause.subject, past=past), f"allowed to {base}"
    if clause.modal == "wollen":
        return _with_support({"base": "want", "third": "wants", "past": "wanted"}, form, f"to {base}", support)
    if clause.modal == "müssen" and (past or support):
        return _with_support({"base": "have", "third": "has", "past": "had"}, form, f"to {base}", support)
    if clause.modal == "möchten":
        return "would", f"like to {base}"
    return {"können": "could" if past else "can", "müssen": "must", "sollen": "should"}[clause.modal], base


def _with_support(forms: dict[str, str], form: str, after: str, support: bool) -> tuple[str, str]:
    """buys, or does (not) buy; forms: base, third, past."""
    if support:
        return {"base": "do", "third": "does", "past": "did"}[form], f"{forms['base']} {after}".strip()
    return "", f"{forms[form]} {after}".strip()


def _be(subject: Phrase, *, past: bool) -> str:
    if subject.plural or subject.person == 2:
        return "were" if past else "are"
    return "was" if past else "am" if subject.person == 1 else "is"
