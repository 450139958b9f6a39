"""The embedded corpus: its grammar on hand-written examples, and what the parts promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from sacrebleu.metrics import BLEU

from twore.data.generated import GENERATED_FINGERPRINT, corpus_fingerprint, generated_corpus, word_for_word
from twore.data.grammar import Draw, sentence
from twore.data.grammar.adjectives import ADJECTIVES, ADVERBIALS, number_words
from twore.data.grammar.clauses import Clause, english, english_question, german, german_final, german_zu
from twore.data.grammar.glosses import words
from twore.data.grammar.nouns import COMPOUND_NOUNS, SIMPLE_NOUNS, english_plural
from twore.data.grammar.phrases import PRONOUNS, noun_phrase, prepositional, relative_pronoun
from twore.data.grammar.verbs import VERBS

NOUNS = {noun.german: noun for noun in (*SIMPLE_NOUNS, *COMPOUND_NOUNS)}
ADJECTIVE = {adjective.german: adjective for adjective in ADJECTIVES}
VERB = {(frame, verb.infinitive): verb for frame, verbs in VERBS.items() for verb in verbs}
ICH, ER, SIE, WIR, DU = PRONOUNS[:5]
TOMORROW = ADVERBIALS["future"][0]


@pytest.fixture(scope="module")
def corpus():
    return generated_corpus()


@pytest.mark.parametrize(
    ("noun", "determiner", "adjective", "plural", "german_forms", "english_form"),
    [
        ("Mann", "der", "alt", False, "der alte Mann, den alten Mann, dem alten Mann", "the old man"),
        ("Frau", "der", "alt", False, "die alte Frau, die alte Frau, der alten Frau", "the old woman"),
        ("Auto", "ein", "neu", False, "ein neues Auto, ein neues Auto, einem neuen Auto", "a new car"),
        ("Apfel", "ein", None, False, "ein Apfel, einen Apfel, einem Apfel", "an apple"),
        ("Hund", "kein", "groß", False, "kein großer Hund, keinen großen Hund, keinem großen Hund", "no big dog"),
        ("Kind", "mein", "klein", True, "meine kleinen Kinder, meine kleinen Kinder, meinen kleinen Kindern",
         "my small children"),
        ("Junge", "dies", None, False, "dieser Junge, diesen Jungen, diesem Jungen", "this boy"),
        ("Auto", "3", "teuer", True, "drei teure Autos, drei teure Autos, drei teuren Autos", "three expensive cars"),
        ("Brot", "none", "frisch", False, "frisches Brot, frisches Brot, frischem Brot", "fresh bread"),
        ("Haustür", "jed", "schwer", False, "jede schwere Haustür, jede schwere Haustür, jeder schweren Haustür",
         "every heavy front door"),
        ("Küche", "unser", "dunkel", False, "unsere dunkle Küche, unsere dunkle Küche, unserer dunklen Küche",
         "our dark kitchen"),
        ("Frau", "sein", None, False, "seine Frau, seine Frau, seiner Frau", "his wife"),
    ],
)  # fmt: skip
def test_agreement(noun, determiner, adjective, plural, german_forms, english_form):
    phrase = noun_phrase(NOUNS[noun], determiner, plural=plural, adjective=ADJECTIVE[adjective] if adjective else None)
    assert ", ".join(phrase.german) == german_forms
    assert phrase.english == english_form


def test_conjugation():
    def forms(frame: str, infinitive: str) -> str:
        verb = VERB[frame, infinitive]
        return " ".join(verb.present(person, plural) for plural in (False, True) for person in (1, 2, 3))

    assert forms("t", "lesen") == "lese liest liest lesen lest lesen"
    assert forms("t", "einladen") == "lade lädst lädt laden ladet laden"  # without its prefix
    assert forms("i", "arbeiten") == "arbeite arbeitest arbeitet arbeiten arbeitet arbeiten"
    assert forms("t", "öffnen") == "öffne öffnest öffnet öffnen öffnet öffnen"
    assert forms("t", "füttern") == "füttere fütterst füttert füttern füttert füttern"
    assert forms("t", "haben") == "habe hast hat haben habt haben"


def test_word_order_of_a_separable_verb():
    woman = noun_phrase(NOUNS["Frau"], "der")
    made = Clause(ER, VERB["t", "anrufen"], "pres", direct=woman, time=TOMORROW)
    assert german(made) == "er ruft morgen die Frau an"
    assert german(made, front="time") == "morgen ruft er die Frau an"
    assert german_final(made, "dass") == "dass er morgen die Frau anruft"
    assert german_zu(made) == "morgen die Frau anzurufen"
    assert english(made) == "he will call the woman tomorrow"
    assert english_question(made, opener="why") == "why will he call the woman tomorrow"


def test_tenses_modals_and_negation():
    door = noun_phrase(NOUNS["Tür"], "der")
    verb = VERB["t", "zumachen"]
    perfect = Clause(DU, verb, "perf", direct=door, negated=True)
    assert german(perfect) == "du hast die Tür nicht zugemacht"
    assert english(perfect) == "you did not close the door"
    must = Clause(SIE, verb, "mod", "müssen", direct=door)
    assert german(must) == "sie muss die Tür zumachen"
    assert german_final(must, "weil") == "weil sie die Tür zumachen muss"
    assert english(must) == "she must close the door"
    assert english_question(must) == "does she have to close the door"
    none = Clause(WIR, VERB["t", "kaufen"], "pres", direct=noun_phrase(NOUNS["Buch"], "kein"), negated=True)
    assert german(none) == "wir kaufen kein Buch"
    assert english(none) == "we are not buying a book"
    gone = Clause(ICH, VERB["dir", "gehen"], "perf", tail=("nach Hause", "home"))
    assert (german(gone), english(gone)) == ("ich bin nach Hause gegangen", "I went home")


def test_dative_and_particles():
    ball, child = noun_phrase(NOUNS["Ball"], "ein"), noun_phrase(NOUNS["Kind"], "der")
    give = Clause(ICH, VERB["dt", "geben"], "pres", direct=ball, indirect=child)
    assert german(give, front="indirect") == "dem Kind gebe ich einen Ball"
    assert english(give) == "I am giving a ball to the child"
    assert english(Clause(ER, VERB["dt", "geben"], "perf", direct=ball, indirect=ICH)) == "he gave me a ball"
    fetch = Clause(ER, VERB["t", "abholen"], "pres", direct=ICH)
    assert (german(fetch), english(fetch)) == ("er holt mich ab", "he is picking me up")


def test_prepositions_numbers_and_compounds():
    assert prepositional("zu", "dat", noun_phrase(NOUNS["Schule"], "der")) == "zur Schule"
    assert prepositional("in", "acc", noun_phrase(NOUNS["Haus"], "der")) == "ins Haus"
    assert prepositional("in", "dat", noun_phrase(NOUNS["Haus"], "mein")) == "in meinem Haus"
    assert relative_pronoun("p", "dat") == "denen" and relative_pronoun("m", "acc") == "den"
    assert number_words(21) == ("einundzwanzig", "twenty-one")
    assert number_words(17) == ("siebzehn", "seventeen") and number_words(30) == ("dreißig", "thirty")
    assert number_words(250) == ("zweihundertfünfzig", "two hundred and fifty")
    tables = NOUNS["Küchentisch"]
    assert (tables.form("dat", True), tables.english_form(True)) == ("Küchentischen", "kitchen tables")
    assert english_plural("policeman") == "policemen" and english_plural("city map") == "city maps"
    with pytest.raises(ValueError, match="from 2 to 999"):
        number_words(1)


def test_counts_and_distinctness(corpus):
    assert {part: len(pairs) for part, pairs in corpus.items()} == {"train": 24_000, "validation": 500, "test": 500}
    sources = [german for pairs in corpus.values() for german, _ in pairs]
    assert len(set(sources)) == len(sources)


def test_parts_are_disjoint_in_both_languages(corpus):
    for side in (0, 1):
        parts = {name: {pair[side] for pair in pairs} for name, pairs in corpus.items()}
        assert not parts["train"] & parts["test"] and not parts["train"] & parts["validation"]
        assert not parts["validation"] & parts["test"]


def test_no_word_form_is_new_outside_training(corpus):
    for side in (0, 1):
        seen = {word for pair in corpus["train"] for word in words(pair[side])}
        assert {word for part in ("validation", "test") for pair in corpus[part] for word in words(pair[side])} <= seen


def test_lengths_and_shape(corpus):
    for pair in (pair for pairs in corpus.values() for pair in pairs):
        for text in pair:
            assert 4 <= len(text.split()) <= 16
            assert re.fullmatch(r"[A-ZÄÖÜ][A-Za-zÄÖÜäöüß' ,-]*[a-zß][.?]", text), text
            assert "  " not in text and " ," not in text and ",," not in text


def test_a_german_sentence_has_one_translation():
    known: dict[str, str] = {}
    draw = Draw(1)
    for _ in range(12_000):
        german_text, english_text = sentence(draw)
        assert known.setdefault(german_text, english_text) == english_text


def test_shares_of_constructions(corpus):
    separable = [verb for verbs in VERBS.values() for verb in verbs if verb.prefix]
    prefixes = "|".join(sorted({verb.prefix for verb in separable}))
    joined = {form for verb in separable for form in (verb.infinitive, verb.participle, verb.zu_infinitive)}
    joined |= {verb.prefix + verb.present(3, plural) for verb in separable for plural in (False, True)}
    compounds = {form for noun in COMPOUND_NOUNS for form in (noun.german, noun.plural) if form}
    numbers = {number_words(number)[0] for number in range(2, 1000)}
    final = re.compile(
        r"\b(dass|ob|weil|obwohl|als|während|wenn|sobald|bevor|bis)\b|, (der|die|das|den|dem|denen) ", re.I
    )
    count: Counter[str] = Counter()
    for text, _ in corpus["train"]:
        found = words(text)
        apart = re.search(rf" ({prefixes})[.,?]", text) is not None
        count["verb at the end"] += bool(final.search(text)) and " als die " not in text
        count["separated prefix"] += apart
        count["separable verb"] += apart or not joined.isdisjoint(found)
        count["compound"] += not compounds.isdisjoint(found)
        count["number"] += any(word.lower() in numbers for word in found)
        count["question"] += text.endswith("?")
        count["negation"] += any(word.lower() == "nicht" or word.lower().startswith("kein") for word in found)
    shares = {name: times / len(corpus["train"]) for name, times in count.items()}
    assert all(share > 0.05 for share in shares.values()), shares
    assert shares["verb at the end"] > 0.2


def test_words_are_moderately_many_and_some_are_rare(corpus):
    for side in (0, 1):
        counts = Counter(word.lower() for pair in corpus["train"] for word in words(pair[side]))
        assert 800 < len(counts) < 2_000
        assert sum(times < 10 for times in counts.values()) > 100


def test_word_for_word_is_not_enough(corpus):
    references = [[english_text for _, english_text in corpus["test"]]]
    replaced = [word_for_word(german_text) for german_text, _ in corpus["test"]]
    assert 25 < BLEU().corpus_score(replaced, references).score < 40
    assert 25 < BLEU(lowercase=True).corpus_score(replaced, references).score < 40
    copied = [german_text for german_text, _ in corpus["test"]]
    assert BLEU().corpus_score(copied, references).score < 5  # the dictionary does help
    assert word_for_word("Der Mann liest ein neues Buch.") == "The man is reading a new book."


def test_fingerprint(corpus):
    assert corpus_fingerprint(corpus) == GENERATED_FINGERPRINT


def test_callers_get_their_own_lists(corpus):
    generated_corpus()["test"].clear()
    assert len(generated_corpus()["test"]) == 500


@pytest.mark.slow
def test_hash_seed_does_not_matter():
    code = "from twore.data import generated as g; print(g.corpus_fingerprint(g.generated_corpus()))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}  # this process has a random one, or another
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == GENERATED_FINGERPRINT
