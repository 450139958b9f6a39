"""A dictionary from German forms to English, and the word-for-word translation that it gives.

It is what a translator without grammar could do at best: each form becomes the lexicon's counterpart that stands most
often beside it in given sentence pairs. A test holds it against the corpus: whoever scores more has learnt grammar.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from twore.data.grammar.adjectives import ADJECTIVES, number_words
from twore.data.grammar.nouns import CITIES, COMPOUND_NOUNS, NAMES, SIMPLE_NOUNS
from twore.data.grammar.phrases import SPOUSES, STRONG, with_article
from twore.data.grammar.special import DATIVE_VERBS
from twore.data.grammar.verbs import MODALS, VERBS

Entry = tuple[Sequence[str], Sequence[str]]  # German forms, what each can mean

# German = English; English ... | is one of several, - is nothing.
FUNCTION_WORDS = """
    der die das den dem = the|who|that|whom; ein eine einen einem einer = a|an
    kein keine keinen keinem keiner = no|not a|any|a; dieser dieses diesen diesem diese = this|these
    jeder jede jedes jeden jedem = every; mein meine meinen meinem meiner = my
    unser unsere unseren unserem unserer = our
    sein seine seinen seinem seiner = his; dein deine deinen deinem deiner = your; viele vielen = many
    einige einigen = some; etwas = some; ich = I; er = he|it; sie = she|they|her|it; es = it; wir = we; du = you
    ihr = you|her; mich mir = me; dich dir = you; ihn ihm = him; uns = us; euch = you; ihnen = them; denen = whom
    nicht = not|does not|did not; und = and; aber = but; denn = because; dass = that; weil = because; ob = whether
    wenn = if; als = when|than; obwohl = although; während = while; sobald = as soon as; bevor = before; bis = until
    um = at|to|-; zu = to|too|-; gern = likes to|like to; in = in|to|into|at; im = in the|in|at the
    ins = into the|to the
    an = of|on|-; am = at the|on|on the; auf = on|for|to|at|-; zum zur = to the; nach = home|to|after; mit = with|by|to
    von = of; vom = of the; vor = ago|in front of|before; hinter = behind; unter = under; neben = next to; für = for
    über = at; hause = home|at home; wer wen wem = who; was = what; wann = when; wo = where; warum = why; sehr = very
    uhr = o'clock|clock; euro = euros; jahre jahren = years; tagen = days; wochen = weeks; tag = day; woche = week
    jahr = year; abend = evening; morgen = tomorrow|morning; früh = morning; gestern = yesterday; heute = today
    letzte letztes letzten = last; nächste nächstes = next; bald = soon; jetzt = now; moment = moment
    wochenende = weekend
    sommer = summer; winter = winter; montag = Monday; samstag = Saturday; sonntag = Sunday; mittwoch = Wednesday
    freitag = Friday; essen = meal|eat; frühstück = breakfast; arbeit = work; oft = often; immer = always
    manchmal = sometimes; nie = never; selten = rarely; wichtig = important; schwer = hard|heavy; leicht = easy
    habe hast hat haben habt = -; war = was; warst waren wart = were; bin = am|-; bist = are|-
    ist = is|-; sind seid = are|-
    hatte hattest hatten hattet = had; werde wirst wird werden werdet = will
    mit ein ab aus weg vor zurück fern = -; liegt liegen = are|is
"""
MODAL_ENGLISH = {
    "können": (("can", "cannot"), ("could", "could not")),
    "müssen": (("must",), ("had to",)),
    "wollen": (("wants to", "want to"), ("wanted to",)),
    "sollen": (("should",), ()),
    "dürfen": (("is allowed to", "are allowed to"), ("was allowed to", "were allowed to")),
    "möchten": (("would like to",), ()),
}
REPORTING = {  # the verbs of reported speech, and kosten, versuchen
    "glaube glaubst glaubt glauben": "believe|believes",
    "sage sagst sagt sagen": "say|says",
    "gesagt": "said",
    "hoffe hoffst hofft hoffen": "hope|hopes",
    "weiß weißt wissen wisst": "know|knows|does not know",
    "gefragt": "asked",
    "gehört": "heard|belongs to",
    "kostet kosten": "costs|cost",
    "versuche versuchst versucht versuchen": "is trying|are trying|tried",
}


def glosses(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """German form, in lower case -> its most frequent English in these pairs among what the lexicon has for it.

    Of two that are as frequent the longer wins: kauft is `is buying`, not `buying`.
    """
    candidates = _candidates()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for german, english in pairs:
        text = f" {' '.join(words(english))} ".lower()
        for form in set(words(german.lower())):
            options = candidates.get(form, [])
            found = [option for option in options if option and f" {option.lower()} " in text]
            for option in found or [""]:
                counts[form][option] += max(1, len(option.split()))
    return {
        form: max(options, key=lambda option: (counts[form][option], -options.index(option)))
        for form, options in candidates.items()
    }


def word_for_word(sentence: str, dictionary: dict[str, str]) -> str:
    """The sentence with each form replaced, and no commas, as most German ones have no English one.

    The final mark and the first capital are kept; a becomes an where it must.
    """
    found = []
    for token in sentence.replace(",", "").split():
        word = token.rstrip(".?")
        meaning = dictionary.get(word.lower(), word)
        found.append(meaning + token[len(word) :])
    text = " ".join(word for word in found if word).replace(" .", ".").replace(" ?", "?")
    text = re.sub(r"\ban? (\w)", lambda match: with_article(match[1]), text)
    return text[:1].upper() + text[1:]


def words(text: str) -> list[str]:
    """The words without the marks."""
    return re.findall(r"[\w'-]+", text)


def _candidates() -> dict[str, list[str]]:
    """Every form of the lexicon with what it can mean, in lower case."""
    table: dict[str, list[str]] = defaultdict(list)
    for forms, options in (*_function_words(), *_nouns_and_adjectives(), *_verbs()):
        for form in forms:
            known = table[form.lower()]
            known += [option for option in options if option not in known]
    return dict(table)


def _function_words() -> Iterator[Entry]:
    for row in re.split(r"[;\n]", FUNCTION_WORDS):
        forms, _, options = row.partition("=")
        yield forms.split(), [option.strip().strip("-") for option in options.split("|")]
    for forms, options in REPORTING.items():
        yield forms.split(), options.split("|")
    for name, _ in NAMES:
        yield [name], [name]
    for german, english in (*CITIES, *(number_words(count) for count in range(2, 1000))):
        yield [german], [english]
    for modal, (present, past) in MODALS.items():
        yield present.split(), MODAL_ENGLISH[modal][0]
        yield past.split(), MODAL_ENGLISH[modal][1]


def _nouns_and_adjectives() -> Iterator[Entry]:
    for noun in (*SIMPLE_NOUNS, *COMPOUND_NOUNS):
        spouse = [SPOUSES[noun.german]] if noun.german in SPOUSES else []
        yield [noun.form("nom", False), noun.form("acc", False)], [noun.english, *spouse]
        if not noun.mass:
            yield [noun.form("nom", True), noun.form("dat", True)], [noun.english_form(True)]
    endings = sorted({ending for row in STRONG.values() for ending in row.split()})
    for adjective in ADJECTIVES:
        yield [adjective.german, *(adjective.stem + ending for ending in endings)], [adjective.english]
        if adjective.comparative:
            yield [adjective.comparative[0]], [adjective.comparative[1]]


def _verbs() -> Iterator[Entry]:
    for verb in (*(verb for verbs in VERBS.values() for verb in verbs), *DATIVE_VERBS.items):
        simple = [verb.english, verb.english_finite("third")]
        going = [f"{be} {verb.english_finite('ing')}" for be in ("is", "are", "am")]
        persons = [verb.present(person, plural) for plural in (False, True) for person in (1, 2, 3)]
        finite = [*([] if verb.stative else going), *simple, f"will {verb.english}"]
        for options, forms in (
            (finite, [form for word in persons for form in (word, verb.prefix + word)]),
            ([verb.english_finite("past")], [verb.participle]),
            ([verb.english], [verb.infinitive]),
            ([f"to {verb.english}"], [verb.zu_infinitive] if verb.prefix else []),
        ):
            yield forms, [f"{option} {verb.particle}".strip() for option in options]
