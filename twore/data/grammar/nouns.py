"""Nouns: gender, plural, English, kind; compounds; places with their prepositions; names.

Within a kind the order is the rank: the first words are frequent, the last rare. The kind says what a noun can be the
subject or the object of (verbs.py) and which adjectives it takes (adjectives.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Noun:
    """One noun; without a plural it is a mass noun (Brot, bread)."""

    german: str
    gender: str
    """m, f or n."""
    plural: str
    english: str
    kind: str
    weak: bool = False
    """Weak masculines take the plural form in the singular's other cases: der Junge, den Jungen."""

    @property
    def mass(self) -> bool:
        return not self.plural

    def form(self, case: str, plural: bool) -> str:
        """The German form in the case nom, acc or dat."""
        if plural:
            return self.plural + ("n" if case == "dat" and self.plural[-1] not in "ns" else "")
        return self.plural if self.weak and case != "nom" else self.german

    def english_form(self, plural: bool) -> str:
        return english_plural(self.english) if plural else self.english


def english_plural(noun: str) -> str:
    """The plural of the last word: front door -> front doors."""
    head, _, last = noun.rpartition(" ")
    if last in ENGLISH_PLURALS:
        last = ENGLISH_PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


ENGLISH_PLURALS = {
    "man": "men",
    "woman": "women",
    "policeman": "policemen",
    "child": "children",
    "knife": "knives",
    "shelf": "shelves",
    "mouse": "mice",
    "sheep": "sheep",
    "fish": "fish",
    "potato": "potatoes",
    "tomato": "tomatoes",
}

# German gender plural English; * is a weak masculine, - no plural, _ a space.
SIMPLE = {
    "person": """
        Mann m Männer man, Frau f Frauen woman, Kind n Kinder child, Lehrer m Lehrer teacher, Freund m Freunde friend,
        Mutter f Mütter mother, Vater m Väter father, Arzt m Ärzte doctor, Bruder m Brüder brother,
        Schwester f Schwestern sister, Mädchen n Mädchen girl, Junge m* Jungen boy, Nachbar m* Nachbarn neighbour,
        Freundin f Freundinnen friend, Tochter f Töchter daughter, Sohn m Söhne son, Student m* Studenten student,
        Lehrerin f Lehrerinnen teacher, Gast m Gäste guest, Ärztin f Ärztinnen doctor, Koch m Köche cook,
        Großmutter f Großmütter grandmother, Großvater m Großväter grandfather, Onkel m Onkel uncle,
        Tante f Tanten aunt, Nachbarin f Nachbarinnen neighbour, Kollege m* Kollegen colleague,
        Bäcker m Bäcker baker, Polizist m* Polizisten policeman, Kellner m Kellner waiter,
        Künstlerin f Künstlerinnen artist, Bauer m* Bauern farmer
    """,
    "animal": """
        Hund m Hunde dog, Katze f Katzen cat, Pferd n Pferde horse, Vogel m Vögel bird, Kuh f Kühe cow,
        Fisch m Fische fish, Ente f Enten duck, Maus f Mäuse mouse, Schaf n Schafe sheep, Bär m* Bären bear
    """,
    "food": """
        Brot n - bread, Apfel m Äpfel apple, Kuchen m Kuchen cake, Suppe f Suppen soup, Käse m - cheese, Ei n Eier egg,
        Fleisch n - meat, Kartoffel f Kartoffeln potato, Brötchen n Brötchen roll, Reis m - rice, Birne f Birnen pear,
        Tomate f Tomaten tomato, Eis n - ice_cream, Schokolade f - chocolate, Salat m Salate salad, Butter f - butter
    """,
    "drink": """
        Kaffee m - coffee, Wasser n - water, Tee m - tea, Milch f - milk, Wein m - wine, Bier n - beer, Saft m - juice
    """,
    "text": """
        Brief m Briefe letter, Geschichte f Geschichten story, Nachricht f Nachrichten message, Roman m Romane novel,
        Gedicht n Gedichte poem
    """,
    "book": """
        Buch n Bücher book, Zeitung f Zeitungen newspaper, Karte f Karten map, Wörterbuch n Wörterbücher dictionary
    """,
    "clothes": """
        Mantel m Mäntel coat, Kleid n Kleider dress, Hemd n Hemden shirt, Schuh m Schuhe shoe, Jacke f Jacken jacket,
        Hut m Hüte hat, Rock m Röcke skirt, Pullover m Pullover sweater, Mütze f Mützen cap, Schal m Schals scarf
    """,
    "door": """
        Tür f Türen door, Fenster n Fenster window, Koffer m Koffer suitcase, Tasche f Taschen bag, Kiste f Kisten box,
        Paket n Pakete parcel, Schrank m Schränke cupboard, Flasche f Flaschen bottle
    """,
    "device": """
        Lampe f Lampen lamp, Computer m Computer computer, Radio n Radios radio, Fernseher m Fernseher television,
        Maschine f Maschinen machine, Herd m Herde stove
    """,
    "vehicle": """
        Auto n Autos car, Fahrrad n Fahrräder bicycle, Boot n Boote boat
    """,
    "transport": """
        Zug m Züge train, Bus m Busse bus, Schiff n Schiffe ship, Taxi n Taxis taxi
    """,
    "furniture": """
        Tisch m Tische table, Stuhl m Stühle chair, Bett n Betten bed, Sofa n Sofas sofa, Regal n Regale shelf
    """,
    "thing": """
        Bild n Bilder picture, Schlüssel m Schlüssel key, Ball m Bälle ball, Geschenk n Geschenke present,
        Uhr f Uhren clock, Tasse f Tassen cup, Glas n Gläser glass, Messer n Messer knife,
        Stift m Stifte pen, Teller m Teller plate, Foto n Fotos photo, Ring m Ringe ring, Spiegel m Spiegel mirror,
        Rucksack m Rucksäcke backpack, Löffel m Löffel spoon
    """,
    "plant": "Blume f Blumen flower, Baum m Bäume tree",
}

# Modifier English: heads. The compound takes gender, plural and kind of its head.
COMPOUNDS = """
    Haus front: Tür; Haus house: Schlüssel
    Küchen kitchen: Tisch Fenster Stuhl Schrank Tür Messer Uhr Lampe
    Winter winter: Mantel Schuh Jacke; Sommer summer: Kleid Hut Rock
    Kinder children's: Buch Zimmer Arzt Bett; Apfel apple: Kuchen Saft Baum
    Garten garden: Tür Stuhl Tisch Lampe; Auto car: Tür Schlüssel Radio
    Holz wooden: Tisch Stuhl Kiste Löffel Brücke; Schul school: Bus Tasche Buch Garten
    Kartoffel potato: Suppe Salat; Tomaten tomato: Suppe Salat; Schokoladen chocolate: Kuchen Eis
    Stadt city: Park Bus Karte Bibliothek; Schlaf bed: Zimmer; Wohn living: Zimmer; Schreib writing: Tisch
    Leder leather: Jacke Schuh Tasche; Taschen pocket: Messer Uhr Lampe; Post post: Karte Auto
    Regen rain: Mantel Schirm; Tee tea: Tasse Glas; Wein wine: Glas Flasche
    Liebes love: Brief Geschichte Gedicht; Kranken sick: Haus; Hand hand: Schuh Tasche
"""
LEXICALISED = {  # compounds that English says its own way
    "Schlafzimmer": "bedroom",
    "Schreibtisch": "desk",
    "Taschenuhr": "pocket watch",
    "Taschenlampe": "torch",
    "Postkarte": "postcard",
    "Postauto": "mail van",
    "Regenmantel": "raincoat",
    "Regenschirm": "umbrella",
    "Teetasse": "teacup",
    "Krankenhaus": "hospital",
    "Handschuh": "glove",
    "Handtasche": "handbag",
    "Kinderarzt": "paediatrician",
    "Stadtkarte": "city map",
}
COMPOUND_HEAD = "Schirm m Schirme umbrella"  # a head of no other use

# German gender plural English, where: preposition and English, whither: preposition and English.
PLACES = """
    Garten m Gärten garden in in in into, Stadt f Städte town in in in to, Küche f Küchen kitchen in in in into,
    Park m Parks park in in in to, Schule f Schulen school in at in to, Bahnhof m Bahnhöfe station an at zu to,
    Haus n Häuser house in in in into, Büro n Büros office in in in to, Markt m Märkte market auf at auf to,
    Dorf n Dörfer village in in in to, Zimmer n Zimmer room in in in into,
    Restaurant n Restaurants restaurant in in in to, Wald m Wälder forest in in in into,
    Bibliothek f Bibliotheken library in in in to, Museum n Museen museum in in in to,
    Strand m Strände beach an on an to, Straße f Straßen street auf in auf into,
    Kirche f Kirchen church in in in into, Hotel n Hotels hotel in in in to, Kino n Kinos cinema in at in to,
    Flughafen m Flughäfen airport an at zu to, Keller m Keller cellar in in in into,
    Supermarkt m Supermärkte supermarket in in in to, Brücke f Brücken bridge auf on auf onto
"""
PLACE_PREPOSITIONS: dict[str, tuple[str, str, str, str]] = {}  # noun -> where, its English, whither, its English

NAMES = (("Anna", "f"), ("Peter", "m"), ("Maria", "f"), ("Paul", "m"), ("Lena", "f"), ("Max", "m"), ("Julia", "f"))
CITIES = (("Berlin", "Berlin"), ("Wien", "Vienna"), ("Hamburg", "Hamburg"), ("Köln", "Cologne"), ("München", "Munich"))


def _simple() -> list[Noun]:
    nouns = []
    for kind, table in SIMPLE.items():
        for row in table.split(","):
            german, gender, plural, english = row.split()
            nouns.append(_noun(german, gender, plural, english, kind))
    for row in PLACES.split(","):
        german, gender, plural, english, where, where_english, whither, whither_english = row.split()
        nouns.append(_noun(german, gender, plural, english, "place"))
        PLACE_PREPOSITIONS[german] = (where, where_english, whither, whither_english)
    return nouns


def _noun(german: str, gender: str, plural: str, english: str, kind: str) -> Noun:
    return Noun(german, gender[0], plural.strip("-"), english.replace("_", " "), kind, weak=gender.endswith("*"))


def _compounds(simple: list[Noun]) -> list[Noun]:
    heads = {noun.german: noun for noun in simple}
    german, gender, plural, english = COMPOUND_HEAD.split()
    heads[german] = _noun(german, gender, plural, english, "thing")
    compounds = []
    for entry in COMPOUNDS.replace("\n", ";").split(";"):
        if not entry.strip():
            continue
        modifier, names = entry.split(":")
        german, english = modifier.split()
        for name in names.split():
            head = heads[name]
            word = german + name.lower()
            meaning = LEXICALISED.get(word, f"{english} {head.english}")
            plural = german + head.plural.lower() if head.plural else ""
            compounds.append(Noun(word, head.gender, plural, meaning, head.kind))
            if name in PLACE_PREPOSITIONS:
                PLACE_PREPOSITIONS[word] = PLACE_PREPOSITIONS[name]
    PLACE_PREPOSITIONS["Krankenhaus"] = ("in", "in", "in", "to")
    return compounds


SIMPLE_NOUNS = _simple()
COMPOUND_NOUNS = _compounds(SIMPLE_NOUNS)
