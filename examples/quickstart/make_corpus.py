#!/usr/bin/env python3
"""Write a German-English corpus of our own making: a small synchronous grammar, drawn from tables.

Every sentence is built from one meaning in both languages. A German word has several English ones, and which of them
is usual depends on the word beside it, as in *heavy rain* and *strong coffee*. Usage is the grammar's own: it is drawn
once for each pair of words. A few pairs show little of it; English text alone (``mono.en``) shows it all. The same
seed gives the same bytes on every Python version, and no German sentence appears twice.

Example:
    python examples/quickstart/make_corpus.py --out /tmp/corpus --train 1500 --mono 60000
"""

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

# class: singular, gender, plural and English of each noun; a|b are English synonyms, a>b is an irregular plural
NOUNS = {
    "person": "Lehrer m Lehrer teacher|instructor, Ärztin f Ärztinnen doctor|physician, Kind n Kinder child>children|kid,"
    "Nachbar m Nachbarn neighbour, Mädchen n Mädchen girl, Bäcker m Bäcker baker, Gast m Gäste guest|visitor,"
    "Richterin f Richterinnen judge",
    "animal": "Hund m Hunde dog|hound, Katze f Katzen cat, Pferd n Pferde horse, Vogel m Vögel bird, Maus f Mäuse mouse>mice,"
    "Kaninchen n Kaninchen rabbit|bunny",
    "food": "Kaffee m Kaffees coffee, Suppe f Suppen soup|broth, Brot n Brote bread|loaf>loaves, Apfel m Äpfel apple,"
    "Kuchen m Kuchen cake|tart, Kartoffel f Kartoffeln potato",
    "weather": "Regen m Regenfälle rain, Sturm m Stürme storm|tempest, Wind m Winde wind|breeze, Nebel m Nebel fog|mist",
    "thing": "Auto n Autos car|automobile, Buch n Bücher book|volume, Lampe f Lampen lamp, Koffer m Koffer suitcase|bag,"
    "Schlüssel m Schlüssel key, Bild n Bilder picture|image, Geschenk n Geschenke present|gift, Messer n Messer knife>knives",
    "idea": "Frage f Fragen question|query, Plan m Pläne plan|scheme, Fehler m Fehler mistake|error, Antwort f Antworten answer,"
    "Gesetz n Gesetze law, Geschichte f Geschichten story|tale",
    "place": "Stadt f Städte city|town, Garten m Gärten garden|yard, Schule f Schulen school, Laden m Läden shop|store,"
    "Wald m Wälder forest|wood, Büro n Büros office",
}
ADJECTIVES = (  # stem and English
    "groß=big|large|great, klein=small|little|tiny, stark=strong|heavy|powerful, alt=old|ancient|aged, "
    "neu=new|fresh|recent, schön=beautiful|lovely|pretty, schlecht=bad|poor|awful, gut=good|nice|decent, "
    "schnell=fast|quick|rapid, klug=clever|smart|wise, dumm=stupid|silly|foolish, ruhig=quiet|calm|peaceful, "
    "leicht=light|easy|slight, kalt=cold|chilly|icy, seltsam=strange|odd|weird, wichtig=important|major|crucial"
)
# infinitive, 3rd person, participle; classes of subject and object; English base/3rd person/past
VERBS = (
    "kaufen kauft gekauft person food+thing buy/buys/bought|purchase/purchases/purchased|get/gets/got\n"
    "machen macht gemacht person idea+food make/makes/made|do/does/did|prepare/prepares/prepared\n"
    "finden findet gefunden person+animal thing+animal+food find/finds/found|discover/discovers/discovered\n"
    "sehen sieht gesehen person+animal person+animal+thing see/sees/saw|notice/notices/noticed|spot/spots/spotted\n"
    "nehmen nimmt genommen person thing+food take/takes/took|grab/grabs/grabbed|accept/accepts/accepted\n"
    "halten hält gehalten person idea+thing+animal hold/holds/held|keep/keeps/kept|give/gives/gave\n"
    "jagen jagt gejagt animal+person animal chase/chases/chased|hunt/hunts/hunted|pursue/pursues/pursued\n"
    "zerstören zerstört zerstört weather place+thing destroy/destroys/destroyed|ruin/ruins/ruined|wreck/wrecks/wrecked\n"
    "treffen trifft getroffen weather+person place+person hit/hits/hit|meet/meets/met|strike/strikes/struck\n"
    "verlassen verlässt verlassen person+animal place+person leave/leaves/left|quit/quits/quit|desert/deserts/deserted\n"
    "verstehen versteht verstanden person idea+person understand/understands/understood|grasp/grasps/grasped\n"
    "ändern ändert geändert person+weather idea change/changes/changed|alter/alters/altered|amend/amends/amended\n"
    "tragen trägt getragen person+animal thing carry/carries/carried|wear/wears/wore|bear/bears/bore\n"
    "lieben liebt geliebt person+animal food+animal+idea love/loves/loved|adore/adores/adored|like/likes/liked\n"
    "zeigen zeigt gezeigt person thing+idea+place show/shows/showed|present/presents/presented|reveal/reveals/revealed\n"
    "bauen baut gebaut person+animal place+thing build/builds/built|construct/constructs/constructed"
)
TIMES = "heute=today, oft=often|frequently, morgens=in the morning|every morning, im Winter=in winter|every winter"
MANNERS = "gern=gladly|happily, leise=quietly|softly|silently, plötzlich=suddenly|abruptly, wirklich=really|truly|indeed"
PREPOSITIONS = "in=in|inside|within, hinter=behind|beyond, neben=beside|near|by"
JOINTS = "weil=because|since|as, obwohl=although|though|while"

CASES = {"nominative": 0, "accusative": 1, "dative": 2}
ARTICLES = {  # by definiteness and gender, p for the plural; then by case
    "definite": {"m": "der den dem", "f": "die die der", "n": "das das dem", "p": "die die den"},
    "indefinite": {"m": "ein einen einem", "f": "eine eine einer", "n": "ein ein einem", "p": "- - -"},
}
ENDINGS = {
    "definite": {"m": "e en en", "f": "e e en", "n": "e e en", "p": "en en en"},
    "indefinite": {"m": "er en en", "f": "e e en", "n": "es es en", "p": "e e en"},
}
USUAL = (0.7, 0.2, 0.07, 0.03)  # how often each of a word's translations is taken, the most usual first
MAX_WORDS = 25


def _entries(table: str) -> list[tuple[str, list[str]]]:
    """German words and their English ones."""
    entries = (entry.strip().split("=") for entry in table.split(","))
    return [(german, english.split("|")) for german, english in entries]


@dataclass(frozen=True)
class Noun:
    """A row of ``NOUNS``: ``german`` holds singular and plural, ``english`` such a pair of each synonym."""

    kind: str
    gender: str
    german: tuple[str, str]
    english: list[tuple[str, str]]


def _english_forms(noun: str) -> tuple[str, str]:
    """Singular and plural."""
    singular, _, plural = noun.partition(">")
    if plural:
        return singular, plural
    if singular[-1] == "y" and singular[-2] not in "aeiou":
        return singular, singular[:-1] + "ies"
    return singular, singular + ("es" if singular.endswith(("s", "x", "ch", "sh", "to")) else "s")


def _nouns() -> dict[str, list[Noun]]:
    nouns: dict[str, list[Noun]] = {}
    for kind, table in NOUNS.items():
        for entry in table.split(","):
            singular, gender, plural, english = entry.strip().split(" ", 3)
            forms = [_english_forms(word) for word in english.split("|")]
            nouns.setdefault(kind, []).append(Noun(kind, gender, (singular, plural), forms))
    return nouns


class Phrase(NamedTuple):
    """Words of one meaning in both languages; of noun phrases also the noun and whether it is plural."""

    german: str
    english: str
    noun: Noun | None = None
    plural: bool = False


class Grammar:
    """Draws sentences; every draw comes from ``seed``, usage does not depend on it."""

    nouns = _nouns()
    adjectives, times, manners = _entries(ADJECTIVES), _entries(TIMES), _entries(MANNERS)
    prepositions, joints = _entries(PREPOSITIONS), _entries(JOINTS)
    verbs = [row.split(" ", 5) for row in VERBS.split("\n")]

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._usage: dict[tuple[str, str], list[int]] = {}

    def often_the_first(self, choices: list[Any]) -> Any:
        """One of the choices; the one of rank r is drawn in proportion to r ** -0.5."""
        return self.random.choices(choices, [rank**-0.5 for rank in range(1, len(choices) + 1)])[0]

    def translation(self, german: str, beside: str, english: list[Any]) -> Any:
        """One of a word's translations, most often the one that is usual beside another word."""
        order = self._usage.get((german, beside))
        if order is None:
            order = list(range(len(english)))
            random.Random(f"{german} beside {beside}").shuffle(order)
            self._usage[german, beside] = order
        return english[self.random.choices(order, USUAL[: len(order)])[0]]

    def noun_phrase(self, kinds: str, case: str) -> Phrase:
        noun = self.often_the_first(self.nouns[self.random.choice(kinds.split("+"))])
        plural = self.random.random() < 0.3
        article = self.random.choice(("definite", "indefinite"))
        gender, column = "p" if plural else noun.gender, CASES[case]
        german = [ARTICLES[article][gender].split()[column].strip("-")]
        english = ["the" if article == "definite" else ""]
        beside = ""
        if self.random.random() < 0.6:
            beside, words = self.often_the_first(self.adjectives_of(noun.kind))
            german.append(beside + ENDINGS[article][gender].split()[column])
            english.append(self.translation(beside, noun.german[0], words))
        word = noun.german[plural]
        german.append(word + "n" if plural and case == "dative" and word[-1] not in "ns" else word)
        english.append(self.translation(noun.german[0], beside, noun.english)[plural])
        text = " ".join(filter(None, english))
        if article == "indefinite" and not plural:
            text = ("an " if text[0] in "aeiou" else "a ") + text
        return Phrase(" ".join(filter(None, german)), text, noun, plural)

    def adjectives_of(self, kind: str) -> list[tuple[str, list[str]]]:
        """The adjectives that go with a class of nouns, in the order of how often they do."""
        order = self.adjectives[:]
        random.Random(kind).shuffle(order)
        return order[:8]

    def clause(self, verb_last: bool) -> Phrase:
        """A clause without its mark; the German verb is the second part, or the last one."""
        infinitive, present, participle, subjects, objects, english = self.often_the_first(self.verbs)
        subject, object_ = self.noun_phrase(subjects, "nominative"), self.noun_phrase(objects, "accusative")
        forms = self.translation(infinitive, object_.noun.german[0], english.split("|")).split("/")
        perfect = self.random.random() < 0.5
        plural = subject.plural
        finite = ("haben" if plural else "hat") if perfect else (infinitive if plural else present)
        verb = forms[2] if perfect else forms[0 if plural else 1]
        german, words = [object_.german], [subject.english, verb, object_.english]
        if self.random.random() < 0.2:
            manner, choices = self.random.choice(self.manners)
            german.append(manner)
            words.append(self.translation(manner, infinitive, choices))
        if self.random.random() < 0.3:
            preposition, choices = self.random.choice(self.prepositions)
            place = self.noun_phrase("place", "dative")
            german.append(f"{preposition} {place.german}")
            words.append(f"{self.translation(preposition, place.noun.german[0], choices)} {place.english}")
        ending = [participle] if perfect else []
        if self.random.random() < 0.3:
            time, choices = self.random.choice(self.times)
            place = self.translation(time, infinitive, [0, len(words)])
            words.insert(place, self.translation(time, "", choices))
            if not verb_last:  # the subject stands behind the verb
                return Phrase(" ".join([time, finite, subject.german, *german, *ending]), " ".join(words))
            german.insert(0, time)
        rest = [*german, *ending, finite] if verb_last else [finite, *german, *ending]
        return Phrase(" ".join([subject.german, *rest]), " ".join(words))

    def sentence(self) -> tuple[str, str]:
        """German and English."""
        main = self.clause(verb_last=False)
        german, english = main.german, main.english
        if self.random.random() < 0.15:
            joint, choices = self.random.choice(self.joints)
            second = self.clause(verb_last=True)
            german += f", {joint} {second.german}"
            english += f" {self.translation(joint, '', choices)} {second.english}"
        return tuple(text[0].upper() + text[1:] + "." for text in (german, english))


def sentences(seed: int) -> Iterator[tuple[str, str]]:
    """Pairs without end, no German sentence twice."""
    grammar, seen = Grammar(seed), set()
    while True:
        german, english = grammar.sentence()
        if german not in seen and len(german.split()) <= MAX_WORDS:
            seen.add(german)
            yield german, english


def write_corpus(out: Path, sizes: dict[str, int], mono: int, seed: int, overwrite: bool = False) -> None:
    """Write ``{split}.de`` and ``{split}.en`` of every split, and ``mono.en``, the English of further pairs.

    Raises:
        FileExistsError: a file is there already and ``overwrite`` is False.
        ValueError: a negative size.
    """
    pairs = sentences(seed)
    texts: dict[str, list[str]] = {}
    for split, size in [*sizes.items(), ("mono", mono)]:
        if size < 0:
            raise ValueError(f"--{split} is {size}; a number of sentences cannot be negative")
        part = list(islice(pairs, size))
        texts |= {
            f"{split}.de": [german for german, _ in part],
            f"{split}.en": [english for _, english in part],
        }
    del texts["mono.de"]
    existing = [name for name in texts if (out / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{out} has {', '.join(existing)} already. Give --overwrite to replace, or another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in texts.items():
        (out / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files; made if missing")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another corpus")
    sizes = {"train": 1500, "valid": 500, "test": 1000}
    for split, size in sizes.items():
        parser.add_argument(f"--{split}", type=int, default=size, help="pairs (default: %(default)s)")
    parser.add_argument(
        "--mono", type=int, default=60000, help="English sentences alone (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    args = parser.parse_args()
    sizes = {split: getattr(args, split) for split in sizes}
    try:
        write_corpus(args.out, sizes, args.mono, args.seed, args.overwrite)
    except (FileExistsError, ValueError) as error:
        sys.exit(f"make_corpus: {error}")
    counts = ", ".join(f"{size} {split}" for split, size in sizes.items())
    print(f"wrote {counts} pairs and {args.mono} English sentences")


if __name__ == "__main__":
    main()
