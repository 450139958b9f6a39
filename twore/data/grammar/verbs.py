"""Verbs: German and English forms, the frame they stand in, and the nouns that make sense beside them.

Frames: i no object · t accusative object · d dative object (help, thank) · dt dative and accusative (give) · p object
with a preposition (wait for) · dir a place to go to · loc a place to be at. Order within a frame is rank, as for nouns.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb; `prefix` is the separable one, at the end of a main clause in the simple tenses."""

    infinitive: str
    prefix: str
    changed: str
    """The stem of du and er where it changes: lies- of lesen; else empty."""
    participle: str
    sein: bool
    """Perfect with sein, not haben."""
    english: str
    """Base form; what follows the first word stays as it is: listen to, fall asleep."""
    past: str
    ing: str
    particle: str
    """What stands after a pronoun object: pick me up."""
    frame: str
    stative: bool
    """Never progressive; simple tenses only, no adverb of time."""
    objects: tuple[str, ...]
    """Kinds of nouns, or single nouns with a capital."""
    subjects: tuple[str, ...]
    preposition: tuple[str, str, str]
    """German, its case, English: of the object with a preposition; English `to` or `for` of the dative in dt."""

    @property
    def base(self) -> str:
        """The infinitive without its prefix."""
        return self.infinitive.removeprefix(self.prefix)

    @property
    def zu_infinitive(self) -> str:
        """anzurufen, zu kaufen."""
        return f"{self.prefix}zu{self.base}" if self.prefix else f"zu {self.infinitive}"

    def present(self, person: int, plural: bool) -> str:
        """The finite form of the present, without the prefix. person: 1, 2 or 3."""
        index = person - 1 + 3 * plural
        if self.infinitive in IRREGULAR:
            return IRREGULAR[self.infinitive].split()[index]
        if index in (3, 5):
            return self.base
        stem = self.base[:-1] if self.base.endswith(("ern", "eln")) else self.base[:-2]
        if index == 0:
            return stem + "e"
        if self.changed and index in (1, 2):
            return self.changed + ("t" if index == 2 or self.changed[-1] in "sßz" else "st")
        link = "e" if stem[-1] in "td" or stem.endswith(("ffn", "gn", "chn")) else ""
        if index == 1:
            return stem + ("t" if stem[-1] in "sßzx" else f"{link}st")
        return f"{stem}{link}t"

    def english_finite(self, tense: str) -> str:
        """third (he buys), past or ing; the base form is `english`."""
        first, _, rest = self.english.partition(" ")
        word = {"third": third_person(first), "past": self.past, "ing": self.ing}[tense]
        return f"{word} {rest}".strip()


def third_person(verb: str) -> str:
    """buys, watches, carries, has."""
    if verb == "have":
        return "has"
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


IRREGULAR = {
    "sein": "bin bist ist sind seid sind",
    "haben": "habe hast hat haben habt haben",
    "werden": "werde wirst wird werden werdet werden",
    "wissen": "weiß weißt weiß wissen wisst wissen",
    "mögen": "mag magst mag mögen mögt mögen",
}
# The German forms of the present and of the past where it is used, and the English: an auxiliary, or a verb with `to`.
MODALS = {
    "können": ("kann kannst kann können könnt können", "konnte konntest konnte konnten konntet konnten"),
    "müssen": ("muss musst muss müssen müsst müssen", "musste musstest musste mussten musstet mussten"),
    "wollen": ("will willst will wollen wollt wollen", "wollte wolltest wollte wollten wolltet wollten"),
    "sollen": ("soll sollst soll sollen sollt sollen", ""),
    "dürfen": ("darf darfst darf dürfen dürft dürfen", "durfte durftest durfte durften durftet durften"),
    "möchten": ("möchte möchtest möchte möchten möchtet möchten", ""),
}
PRETERITE = {
    "sein": "war warst war waren wart waren",
    "haben": "hatte hattest hatte hatten hattet hatten",
}

# infinitive[|prefix] changed participle[+ for sein] / English past ing [particle] / objects [/ subjects]
# _ a space; - none; a frame's capital S marks stative verbs. p: German+case+English after the English forms.
TABLE = {
    "t": """
        kaufen - gekauft / buy bought buying / food drink clothes book furniture thing device vehicle
        sehen sieh gesehen / see saw seeing S / person animal vehicle transport plant place book
        lesen lies gelesen / read read reading / book text
        suchen - gesucht / look_for looked looking / thing clothes person book animal
        an|rufen - angerufen / call called calling / person
        kennen - gekannt / know knew knowing S / person place
        auf|machen - aufgemacht / open opened opening / door
        haben - gehabt / have had having S / animal clothes vehicle thing device book
        essen iss gegessen / eat ate eating / food
        besuchen - besucht / visit visited visiting / person
        ab|holen - abgeholt / pick picked picking up / person
        trinken - getrunken / drink drank drinking / drink
        zu|machen - zugemacht / close closed closing / door
        finden - gefunden / find found finding S / thing clothes book animal text
        brauchen - gebraucht / need needed needing S / thing clothes device vehicle furniture book
        ein|laden läd eingeladen / invite invited inviting / person
        an|machen - angemacht / turn turned turning on / device
        schreiben - geschrieben / write wrote writing / text
        mit|bringen - mitgebracht / bring brought bringing along / food drink thing book
        verkaufen - verkauft / sell sold selling / vehicle furniture device food book animal
        aus|machen - ausgemacht / turn turned turning off / device
        lieben - geliebt / love loved loving S / person animal
        tragen träg getragen / wear wore wearing / clothes
        treffen triff getroffen / meet met meeting / person
        auf|räumen - aufgeräumt / tidy tidied tidying up / Küche Zimmer Büro Keller Schlafzimmer Wohnzimmer Kinderzimmer
        kochen - gekocht / cook cooked cooking / Suppe Kartoffel Fleisch Reis Ei Kartoffelsuppe Tomatensuppe
        waschen wäsch gewaschen / wash washed washing / clothes Auto Fahrrad Teller Tasse Glas
        ein|packen - eingepackt / pack packed packing / clothes thing book
        fragen - gefragt / ask asked asking / person
        öffnen - geöffnet / open opened opening / door text
        weg|werfen wirf weggeworfen / throw threw throwing away / thing clothes book
        verstehen - verstanden / understand understood understanding S / person text book
        reparieren - repariert / repair repaired repairing / device vehicle furniture transport
        an|ziehen - angezogen / put put putting on / clothes
        bestellen - bestellt / order ordered ordering / food drink book
        malen - gemalt / paint painted painting / animal plant person place
        verlieren - verloren / lose lost losing / thing clothes
        mit|nehmen nimm mitgenommen / take took taking along / thing animal person clothes
        putzen - geputzt / clean cleaned cleaning / Fenster Tür Schuh Fahrrad Spiegel Herd Küche Haustür
        backen - gebacken / bake baked baking / Kuchen Brot Brötchen Apfelkuchen Schokoladenkuchen
        fotografieren - fotografiert / photograph photographed photographing / person animal place plant
        auf|essen iss aufgegessen / eat ate eating up / food
        vergessen vergiss vergessen / forget forgot forgetting / thing clothes
        aus|packen - ausgepackt / unpack unpacked unpacking / door Geschenk
        aus|ziehen - ausgezogen / take took taking off / clothes
        benutzen - benutzt / use used using / device vehicle Wörterbuch Messer Herd
        aus|trinken - ausgetrunken / drink drank drinking up / drink
        füttern - gefüttert / feed fed feeding / animal
        zurück|geben gib zurückgegeben / give gave giving back / thing book
        bauen - gebaut / build built building / Haus Brücke Boot Regal Holzbrücke
        gießen - gegossen / water watered watering / plant
        an|probieren - anprobiert / try tried trying on / clothes
        auf|hängen - aufgehängt / hang hung hanging up / Bild Mantel Jacke Spiegel Foto Lampe Uhr Hemd
    """,
    "i": """
        schlafen schläf geschlafen / sleep slept sleeping / - / person animal
        arbeiten - gearbeitet / work worked working / -
        kommen - gekommen+ / come came coming / -
        an|kommen - angekommen+ / arrive arrived arriving / - / person transport
        auf|stehen - aufgestanden+ / get_up got getting / -
        spielen - gespielt / play played playing / - / person animal
        warten - gewartet / wait waited waiting / - / person animal
        ein|kaufen - eingekauft / go_shopping went going / -
        singen - gesungen / sing sang singing / -
        ein|schlafen schläf eingeschlafen+ / fall_asleep fell falling / - / person animal
        tanzen - getanzt / dance danced dancing / -
        lachen - gelacht / laugh laughed laughing / -
        zurück|kommen - zurückgekommen+ / come_back came coming / - / person animal
        fern|sehen sieh ferngesehen / watch_television watched watching / -
        weinen - geweint / cry cried crying / -
        ab|fahren fähr abgefahren+ / leave left leaving / - / transport
        auf|wachen - aufgewacht+ / wake_up woke waking / - / person animal
        frühstücken - gefrühstückt / have_breakfast had having / -
        schwimmen - geschwommen+ / swim swam swimming / - / person animal
    """,
    "d": """
        helfen hilf geholfen / help helped helping / person
        danken - gedankt / thank thanked thanking / person
        zu|hören - zugehört / listen_to listened listening / person
        antworten - geantwortet / answer answered answering / person
        folgen - gefolgt+ / follow followed following / person animal
        vertrauen - vertraut / trust trusted trusting S / person
        gratulieren - gratuliert / congratulate congratulated congratulating / person
    """,
    "dt": """
        geben gib gegeben / give gave giving to / thing book food drink
        zeigen - gezeigt / show showed showing to / book thing text place
        bringen - gebracht / bring brought bringing to / food drink thing book
        kaufen - gekauft / buy bought buying for / thing clothes book food
        schicken - geschickt / send sent sending to / text thing book
        schenken - geschenkt / give gave giving to / thing book clothes plant
        vor|lesen lies vorgelesen / read read reading to / text Buch
        leihen - geliehen / lend lent lending to / vehicle thing book
        erzählen - erzählt / tell told telling to / Geschichte Liebesgeschichte
    """,
    "p": """
        warten - gewartet / wait waited waiting auf+acc+for / person transport
        sprechen sprich gesprochen / talk talked talking mit+dat+to / person
        spielen - gespielt / play played playing mit+dat+with / animal person Ball
        denken - gedacht / think thought thinking an+acc+of / person animal
        träumen - geträumt / dream dreamed dreaming von+dat+of / person animal vehicle
        arbeiten - gearbeitet / work worked working für+acc+for / person
        lachen - gelacht / laugh laughed laughing über+acc+at / person animal
    """,
    "dir": """
        gehen - gegangen+ / go went going / -
        fahren fähr gefahren+ / travel travelled travelling / -
        laufen läuf gelaufen+ / run ran running / - / person animal
        zurück|gehen - zurückgegangen+ / go_back went going / -
    """,
    "loc": """
        wohnen - gewohnt / live lived living S / -
        arbeiten - gearbeitet / work worked working / -
        bleiben - geblieben+ / stay stayed staying / -
        sitzen - gesessen / sit sat sitting / - / person animal
    """,
}


def _verb(row: str, frame: str) -> Verb:
    fields = [field.split() for field in row.split("/")]
    (infinitive, changed, participle), english, objects = fields[:3]
    stative = english[-1] == "S"
    base, past, ing, *extra = english[: len(english) - stative]
    particle, preposition = "", ("", "", "")
    if frame == "p":
        german, case, word = extra[0].split("+")
        preposition = german, case, word
    elif frame == "dt":
        preposition = "", "dat", extra[0]
    elif extra:
        particle = extra[0]
    prefix, _, rest = infinitive.rpartition("|")
    return Verb(
        infinitive=prefix + rest,
        prefix=prefix,
        changed=changed.strip("-"),
        participle=participle.rstrip("+"),
        sein=participle.endswith("+"),
        english=base.replace("_", " "),
        past=past,
        ing=ing,
        particle=particle,
        frame=frame,
        stative=stative,
        objects=() if objects == ["-"] else tuple(objects),
        subjects=tuple(fields[3]) if len(fields) > 3 else ("person",),
        preposition=preposition,
    )


VERBS = {frame: [_verb(row, frame) for row in table.strip().splitlines()] for frame, table in TABLE.items()}
BE = Verb("sein", "", "", "gewesen", True, "be", "was", "being", "", "be", True, (), (), ("", "", ""))
