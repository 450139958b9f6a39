"""Adjectives, adverbials of time and frequency, and numbers as words.

An adverbial's category says which tenses it goes with and what the German present means in English beside it:
`Morgen kommt er.` is `Tomorrow he will come.`, `Er kommt jeden Tag.` is `He comes every day.`
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Adjective:
    german: str
    stem: str
    """What the endings are added to: teuer, but ein teures Auto."""
    english: str
    kinds: tuple[str, ...]
    comparative: tuple[str, str] | None = None
    """German and English, where the corpus compares with it."""


@dataclass(frozen=True, slots=True)
class Adverbial:
    german: str
    english: str
    category: str
    """A key of TENSES, or frequency, place."""


# What tenses go with an adverbial, and the English of the German present beside it.
TENSES = {
    "past": ("perf", "modpast"),
    "future": ("pres", "fut", "mod"),
    "now": ("pres", "mod"),
    "today": ("pres", "perf", "fut", "mod", "modpast"),
    "habit": ("pres", "perf"),
    "point": ("pres", "perf", "fut", "mod", "modpast"),
}
PRESENT_ASPECT = {"future": "will", "point": "will", "habit": "simple", "frequency": "simple"}  # else progressive

LIVING = ("person", "animal")
THINGS = ("clothes", "door", "device", "vehicle", "transport", "furniture", "thing", "book", "place")
ANY = (*LIVING, *THINGS, "plant")
COLOURED = ("clothes", "vehicle", "transport", "door", "furniture", "thing")
# Kinds, and their adjectives: German[/stem] English [German and English comparative]; _ a space
ADJECTIVES_TABLE = (
    (
        ANY,
        """
        alt old älter older, klein small kleiner smaller, schön beautiful schöner more_beautiful
    """,
    ),
    (("person",), "groß tall größer taller, nett nice, klug clever klüger cleverer"),
    (("animal", *THINGS, "plant"), "groß big größer bigger"),
    (THINGS, "neu new, teuer/teur expensive teurer more_expensive, billig cheap billiger cheaper, modern modern"),
    (
        LIVING,
        """
        jung young jünger younger, müde/müd tired, krank sick, freundlich friendly freundlicher friendlier,
        traurig sad, glücklich happy glücklicher happier, hungrig hungry, stark strong stärker stronger
    """,
    ),
    (
        ("person",),
        """
        reich rich reicher richer, berühmt famous, arm poor, fleißig diligent, lustig funny lustiger funnier
    """,
    ),
    (
        COLOURED,
        """
        rot red, schwarz black, weiß white, blau blue, grün green, braun brown, gelb yellow
    """,
    ),
    (("device", "vehicle", "door", "furniture"), "kaputt broken, schmutzig dirty, schwer heavy schwerer heavier"),
    (("food", "drink"), "frisch fresh, kalt cold, lecker delicious, heiß hot"),
    (
        ("text", "book"),
        """
        interessant interesting interessanter more_interesting, lang long länger longer, kurz short,
        langweilig boring, spannend exciting spannender more_exciting
    """,
    ),
    (("vehicle", "transport", "animal"), "schnell fast schneller faster, langsam slow"),
    (("place",), "dunkel/dunkl dark, ruhig quiet ruhiger quieter, berühmt famous, sauber clean"),
)

TIMES_TABLE = {
    "past": """
        gestern = yesterday, letzte Woche = last week, heute Morgen = this morning, letztes Jahr = last year,
        gestern Abend = yesterday evening, am letzten Freitag = last Friday
    """,
    "future": """
        morgen = tomorrow, bald = soon, nächste Woche = next week, heute Abend = this evening,
        morgen früh = tomorrow morning, nächstes Jahr = next year
    """,
    "now": "jetzt = now, im Moment = at the moment",
    "today": "heute = today",
    "habit": """
        jeden Tag = every day, jeden Morgen = every morning, am Wochenende = at the weekend, im Sommer = in summer,
        jede Woche = every week, im Winter = in winter
    """,
    "point": """
        am Montag = on Monday, nach dem Essen = after the meal, am Samstag = on Saturday,
        vor dem Frühstück = before breakfast, am Sonntag = on Sunday, nach der Arbeit = after work,
        am Mittwoch = on Wednesday
    """,
    "frequency": "oft = often, immer = always, manchmal = sometimes, nie = never, selten = rarely",
}

UNITS = ["null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
TEENS = {16: "sechzehn", 17: "siebzehn"}
TENS = ["-", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
ENGLISH_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""".split()  # noqa: SIM905
ENGLISH_TENS = ["-", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_words(number: int) -> tuple[str, str]:
    """German and English words of a number from 2 to 999: 21 is einundzwanzig, twenty-one."""
    if not 2 <= number <= 999:
        raise ValueError(f"numbers from 2 to 999 are written as words: got {number}")
    hundreds, rest = divmod(number, 100)
    german, english = _below_hundred(rest) if rest else ("", "")
    if hundreds:
        german = ("" if hundreds == 1 else UNITS[hundreds]) + "hundert" + german
        english = f"{ENGLISH_UNITS[hundreds]} hundred" + (f" and {english}" if rest else "")
    return german, english


def _below_hundred(number: int) -> tuple[str, str]:
    tens, unit = divmod(number, 10)
    if number < 20:
        german = TEENS.get(number) or (UNITS[number] if number < 13 else UNITS[unit] + "zehn")
        return ("eins" if number == 1 else german), ENGLISH_UNITS[number]
    if not unit:
        return TENS[tens], ENGLISH_TENS[tens]
    return f"{UNITS[unit]}und{TENS[tens]}", f"{ENGLISH_TENS[tens]}-{ENGLISH_UNITS[unit]}"


def _adjectives() -> list[Adjective]:
    adjectives = []
    for kinds, table in ADJECTIVES_TABLE:
        for row in table.split(","):
            german, english, *comparison = row.replace("\n", " ").split()
            base, _, stem = german.partition("/")
            pair = (comparison[0], comparison[1].replace("_", " ")) if comparison else None
            adjectives.append(Adjective(base, stem or base, english, kinds, pair))
    return adjectives


def _adverbials() -> dict[str, list[Adverbial]]:
    adverbials: dict[str, list[Adverbial]] = {}
    for category, table in TIMES_TABLE.items():
        for row in table.split(","):
            german, english = row.split("=")
            adverbials.setdefault(category, []).append(Adverbial(german.strip(), english.strip(), category))
    return adverbials


ADJECTIVES = _adjectives()
ADVERBIALS = _adverbials()
