"""Words of the quickstart corpus: nouns, adjectives, verbs with what they can be said of.

Each table is one entry a line, columns separated by ``|``. Column meanings stand above each table.
"""

from dataclasses import dataclass

from german import Adjective, Noun, Verb

# word | gender | plural | English | English plural (empty: +s; "-": mass noun) | classes | oblique if weak
_NOUNS = """\
Lehrer|m|Lehrer|teacher||person job
Lehrerin|f|Lehrerinnen|teacher||person job
Arzt|m|Ärzte|doctor||person job
Ärztin|f|Ärztinnen|doctor||person job
Student|m|Studenten|student||person job|Studenten
Studentin|f|Studentinnen|student||person job
Nachbar|m|Nachbarn|neighbour||person own|Nachbarn
Nachbarin|f|Nachbarinnen|neighbour||person own
Kollege|m|Kollegen|colleague||person own|Kollegen
Kollegin|f|Kolleginnen|colleague||person own
Polizist|m|Polizisten|police officer||person job|Polizisten
Polizistin|f|Polizistinnen|police officer||person job
Verkäufer|m|Verkäufer|shop assistant||person job
Verkäuferin|f|Verkäuferinnen|shop assistant||person job
Ingenieur|m|Ingenieure|engineer||person job
Ingenieurin|f|Ingenieurinnen|engineer||person job
Anwalt|m|Anwälte|lawyer||person job
Anwältin|f|Anwältinnen|lawyer||person job
Musiker|m|Musiker|musician||person job
Musikerin|f|Musikerinnen|musician||person job
Journalist|m|Journalisten|journalist||person job|Journalisten
Journalistin|f|Journalistinnen|journalist||person job
Schauspielerin|f|Schauspielerinnen|actress|actresses|person job
Kellner|m|Kellner|waiter||person job
Mann|m|Männer|man|men|person
Frau|f|Frauen|woman|women|person
Junge|m|Jungen|boy||person child|Jungen
Mädchen|n|Mädchen|girl||person child
Kind|n|Kinder|child|children|person child
Freund|m|Freunde|friend||person own
Gast|m|Gäste|guest||person
Kunde|m|Kunden|customer||person|Kunden
Kundin|f|Kundinnen|customer||person
Touristin|f|Touristinnen|tourist||person
Vater|m|Väter|father||kin
Mutter|f|Mütter|mother||kin
Bruder|m|Brüder|brother||kin many
Schwester|f|Schwestern|sister||kin many
Sohn|m|Söhne|son||kin many
Tochter|f|Töchter|daughter||kin many
Onkel|m|Onkel|uncle||kin many
Tante|f|Tanten|aunt||kin many
Großvater|m|Großväter|grandfather||kin
Großmutter|f|Großmütter|grandmother||kin
Cousin|m|Cousins|cousin||kin many
Hund|m|Hunde|dog||animal
Katze|f|Katzen|cat||animal
Pferd|n|Pferde|horse||animal
Vogel|m|Vögel|bird||animal
Hase|m|Hasen|hare||animal|Hasen
Buch|n|Bücher|book||text gift
Zeitung|f|Zeitungen|newspaper||text
Brief|m|Briefe|letter||text writing
Roman|m|Romane|novel||text writing
Artikel|m|Artikel|article||text writing
Bericht|m|Berichte|report||text writing paper
Gedicht|n|Gedichte|poem||text writing
Nachricht|f|Nachrichten|message||text writing
Postkarte|f|Postkarten|postcard||text writing
Vertrag|m|Verträge|contract||text paper
Formular|n|Formulare|form||paper form
Apfel|m|Äpfel|apple||food
Kuchen|m|Kuchen|cake||food cooking
Suppe|f|Suppen|soup||food cooking
Ei|n|Eier|egg||food
Fisch|m|Fische|fish|fish|food
Salat|m|Salate|salad||food
Banane|f|Bananen|banana||food
Kartoffel|f|Kartoffeln|potato|potatoes|food
Käse|m|Käse|cheese|-|food
Brot|n|Brote|bread|-|food
Reis|m|Reis|rice|-|food
Kaffee|m|Kaffees|coffee|-|drink
Tee|m|Tees|tea|-|drink
Milch|f|Milch|milk|-|drink
Wasser|n|Wasser|water|-|drink
Saft|m|Säfte|juice|-|drink
Wein|m|Weine|wine|-|drink
Fahrrad|n|Fahrräder|bicycle||thing parkable goods machine
Auto|n|Autos|car||thing parkable goods machine
Motorrad|n|Motorräder|motorcycle||thing parkable goods machine
Uhr|f|Uhren|watch|watches|thing goods gift machine
Lampe|f|Lampen|lamp||thing goods device machine
Kamera|f|Kameras|camera||thing goods gift machine
Computer|m|Computer|computer||thing goods device machine
Tasche|f|Taschen|bag||thing goods gift luggage
Koffer|m|Koffer|suitcase||thing goods luggage openable
Rucksack|m|Rucksäcke|backpack||thing goods luggage
Schlüssel|m|Schlüssel|key||thing small
Regenschirm|m|Regenschirme|umbrella||thing goods small
Handy|n|Handys|mobile phone||thing goods small machine
Tisch|m|Tische|table||thing goods
Stuhl|m|Stühle|chair||thing goods
Bild|n|Bilder|picture||thing goods gift art
Ball|m|Bälle|ball||thing goods gift small
Spiegel|m|Spiegel|mirror||thing goods
Teppich|m|Teppiche|carpet||thing goods
Schrank|m|Schränke|cupboard||thing goods openable
Sofa|n|Sofas|sofa||thing goods
Messer|n|Messer|knife|knives|thing goods small
Flasche|f|Flaschen|bottle||thing small openable
Fahrkarte|f|Fahrkarten|ticket||small ticket
Paket|n|Pakete|parcel||thing parcel openable
Ring|m|Ringe|ring||thing goods gift small
Gitarre|f|Gitarren|guitar||thing goods gift instrument
Klavier|n|Klaviere|piano||thing goods instrument
Geige|f|Geigen|violin||thing goods gift instrument
Mantel|m|Mäntel|coat||clothes goods
Hemd|n|Hemden|shirt||clothes goods
Kleid|n|Kleider|dress|dresses|clothes goods
Rock|m|Röcke|skirt||clothes goods
Jacke|f|Jacken|jacket||clothes goods
Hut|m|Hüte|hat||clothes goods
Pullover|m|Pullover|jumper||clothes goods
Anzug|m|Anzüge|suit||clothes goods
Zug|m|Züge|train||vehicle
Bus|m|Busse|bus|buses|vehicle
Schiff|n|Schiffe|ship||vehicle
Flugzeug|n|Flugzeuge|plane||vehicle
Haus|n|Häuser|house||building home
Wohnung|f|Wohnungen|flat||home room
Zimmer|n|Zimmer|room||room
Küche|f|Küchen|kitchen||room
Kirche|f|Kirchen|church|churches|building
Museum|n|Museen|museum||building sight
Schloss|n|Schlösser|castle||building sight
Brücke|f|Brücken|bridge||building
Turm|m|Türme|tower||building
Restaurant|n|Restaurants|restaurant||building sight
Konzert|n|Konzerte|concert||event show
Sitzung|f|Sitzungen|meeting||event planned
Prüfung|f|Prüfungen|exam||event
Feier|f|Feiern|party|parties|event planned
Hochzeit|f|Hochzeiten|wedding||event planned
Kurs|m|Kurse|course||event
Vortrag|m|Vorträge|talk||event show
Ausstellung|f|Ausstellungen|exhibition||event show
Reise|f|Reisen|journey||planned trip
Ausflug|m|Ausflüge|trip||planned trip
Idee|f|Ideen|idea||thought
Frage|f|Fragen|question||thought puzzle
Regel|f|Regeln|rule||thought puzzle
Plan|m|Pläne|plan||thought offer
Aufgabe|f|Aufgaben|task||puzzle
Problem|n|Probleme|problem||puzzle
Angebot|n|Angebote|offer||offer
Einladung|f|Einladungen|invitation||offer
Vorschlag|m|Vorschläge|suggestion||offer
Geschichte|f|Geschichten|story|stories|tale
Witz|m|Witze|joke||tale
Lied|n|Lieder|song||music
Film|m|Filme|film||show watch
Spiel|n|Spiele|match|matches|event watch show
Rechnung|f|Rechnungen|bill||bill
Adresse|f|Adressen|address|addresses|note
Telefonnummer|f|Telefonnummern|phone number||note
Name|m|Namen|name||note|Namen
Tür|f|Türen|door||openable
Fenster|n|Fenster|window||openable
Fernseher|m|Fernseher|television||device machine
Radio|n|Radios|radio||device machine
Heizung|f|Heizungen|heating|-|device
Baum|m|Bäume|tree||plant
Blume|f|Blumen|flower||plant gift
Dorf|n|Dörfer|village||town
Stadt|f|Städte|city|cities|town
"""

# word | stem | comparative | superlative stem | English | English comparative | superlative | noun classes
_ADJECTIVES = """\
alt|alt|älter|ältest|old|older|oldest|person thing clothes building town text
jung|jung|jünger|jüngst|young|younger|youngest|person animal
freundlich|freundlich|freundlicher|freundlichst|friendly|friendlier|friendliest|person
nett|nett|netter|nettest|nice|nicer|nicest|person
höflich|höflich|höflicher|höflichst|polite|more polite|most polite|person
klug|klug|klüger|klügst|clever|cleverer|cleverest|person
fleißig|fleißig|fleißiger|fleißigst|hard-working|more hard-working|most hard-working|person
berühmt|berühmt|berühmter|berühmtest|famous|more famous|most famous|job building
müde|müd|müder|müdest|tired|more tired|most tired|person
neu|neu|neuer|neuest|new|newer|newest|thing clothes home text show vehicle device thought event own job
groß|groß|größer|größt|big|bigger|biggest|thing animal home building parcel plant town
klein|klein|kleiner|kleinst|small|smaller|smallest|thing animal home building parcel town child
schön|schön|schöner|schönst|beautiful|more beautiful|most beautiful|thing clothes home building plant music town
rot|rot|röter|rötest|red|redder|reddest|goods clothes plant
blau|blau|blauer|blauest|blue|bluer|bluest|goods clothes
grün|grün|grüner|grünst|green|greener|greenest|goods clothes
schwarz|schwarz|schwärzer|schwärzest|black|blacker|blackest|goods clothes animal
weiß|weiß|weißer|weißest|white|whiter|whitest|goods clothes animal
teuer|teur|teurer|teuerst|expensive|more expensive|most expensive|goods clothes home
billig|billig|billiger|billigst|cheap|cheaper|cheapest|goods clothes
schwer|schwer|schwerer|schwerst|heavy|heavier|heaviest|luggage parcel
leicht|leicht|leichter|leichtest|light|lighter|lightest|luggage parcel
warm|warm|wärmer|wärmst|warm|warmer|warmest|clothes cooking
kalt|kalt|kälter|kältest|cold|colder|coldest|drink
heiß|heiß|heißer|heißest|hot|hotter|hottest|cooking
frisch|frisch|frischer|frischest|fresh|fresher|freshest|food
lang|lang|länger|längst|long|longer|longest|text trip writing show
kurz|kurz|kürzer|kürzest|short|shorter|shortest|text trip writing
interessant|interessant|interessanter|interessantest|interesting|more interesting|most interesting|text show tale thought offer
langweilig|langweilig|langweiliger|langweiligst|boring|more boring|most boring|text show
wichtig|wichtig|wichtiger|wichtigst|important|more important|most important|paper puzzle event
schwierig|schwierig|schwieriger|schwierigst|difficult|more difficult|most difficult|puzzle
einfach|einfach|einfacher|einfachst|simple|simpler|simplest|puzzle
lustig|lustig|lustiger|lustigst|funny|funnier|funniest|tale
gut|gut|besser|best|good|better|best|thought offer text show food tale
schnell|schnell|schneller|schnellst|fast|faster|fastest|vehicle machine
modern|modern|moderner|modernst|modern|more modern|most modern|home building device
hoch|hoh|höher|höchst|high|higher|highest|bill
dunkel|dunkl|dunkler|dunkelst|dark|darker|darkest|room clothes
hell|hell|heller|hellst|bright|brighter|brightest|room
ruhig|ruhig|ruhiger|ruhigst|quiet|quieter|quietest|room town
stark|stark|stärker|stärkst|strong|stronger|strongest|animal
seltsam|seltsam|seltsamer|seltsamst|strange|stranger|strangest|tale thought text
"""

# prefix+base | third | preterite | participle (without prefix) | English | frame | flags
# Frame: "acc:classes", "dat", "dat+acc:classes" (English by the pattern "to" or two objects), "prep case en:classes",
#   "dir" (goes somewhere), "loc" (is somewhere), "none".
# English: "~up" stands behind a pronoun but before a noun, "=back" behind both; a final "to" marks a receiver.
# Flags: s perfect with sein, r reflexive, h habit, n in progress now, i can be commanded, 0 no adverb of place.
_VERBS = """\
lesen|liest|las|gelesen|read|acc:text tale|hni
schreiben|schreibt|schrieb|geschrieben|write|acc:writing|hni
kaufen|kauft|kaufte|gekauft|buy|acc:goods food text clothes|hi
verkaufen|verkauft|verkaufte|verkauft|sell|acc:goods|i
trinken|trinkt|trank|getrunken|drink|acc:drink|hni
essen|isst|aß|gegessen|eat|acc:food|hni
suchen|sucht|suchte|gesucht|look for|acc:small thing home|n
finden|findet|fand|gefunden|find|acc:small thing|
verlieren|verliert|verlor|verloren|lose|acc:small luggage|
vergessen|vergisst|vergaß|vergessen|forget|acc:note small|
sehen|sieht|sah|gesehen|see|acc:person animal watch building|
besuchen|besucht|besuchte|besucht|visit|acc:person kin sight|hi
treffen|trifft|traf|getroffen|meet|acc:person kin|h
fragen|fragt|fragte|gefragt|ask|acc:person kin|i
bezahlen|bezahlt|bezahlte|bezahlt|pay|acc:bill|i
bestellen|bestellt|bestellte|bestellt|order|acc:food drink goods|i
reparieren|repariert|reparierte|repariert|repair|acc:machine|ni
putzen|putzt|putzte|geputzt|clean|acc:room|hni0
waschen|wäscht|wusch|gewaschen|wash|acc:clothes parkable|hni
brauchen|braucht|brauchte|gebraucht|need|acc:thing clothes|
öffnen|öffnet|öffnete|geöffnet|open|acc:openable|i0
schließen|schließt|schloss|geschlossen|close|acc:openable|i0
verstehen|versteht|verstand|verstanden|understand|acc:puzzle text thought|0
erklären|erklärt|erklärte|erklärt|explain to|dat+acc:puzzle offer|ni
malen|malt|malte|gemalt|paint|acc:art plant animal|n
zeichnen|zeichnet|zeichnete|gezeichnet|draw|acc:building plant animal|n
füttern|füttert|fütterte|gefüttert|feed|acc:animal|hni
spielen|spielt|spielte|gespielt|play|acc:instrument|h
fotografieren|fotografiert|fotografierte|fotografiert|photograph|acc:building animal person|n
übersetzen|übersetzt|übersetzte|übersetzt|translate|acc:text|ni
unterschreiben|unterschreibt|unterschrieb|unterschrieben|sign|acc:paper|i0
verstecken|versteckt|versteckte|versteckt|hide|acc:gift small|i0
tragen|trägt|trug|getragen|carry|acc:luggage parcel|n
zerbrechen|zerbricht|zerbrach|zerbrochen|break|acc:instrument|0
geben|gibt|gab|gegeben|give|dat+acc:small thing text|i0
schenken|schenkt|schenkte|geschenkt|give|dat+acc:gift|i0
zeigen|zeigt|zeigte|gezeigt|show|dat+acc:art text home|i0
schicken|schickt|schickte|geschickt|send|dat+acc:writing parcel|i0
leihen|leiht|lieh|geliehen|lend|dat+acc:goods text|i0
empfehlen|empfiehlt|empfahl|empfohlen|recommend to|dat+acc:text watch sight|i0
erzählen|erzählt|erzählte|erzählt|tell|dat+acc:tale|i0
helfen|hilft|half|geholfen|help|dat:|hi
danken|dankt|dankte|gedankt|thank|dat:|i0
glauben|glaubt|glaubte|geglaubt|believe|dat:|0
antworten|antwortet|antwortete|geantwortet|answer|dat:|i0
gratulieren|gratuliert|gratulierte|gratuliert|congratulate|dat:|0
folgen|folgt|folgte|gefolgt|follow|dat:|s
warten|wartet|wartete|gewartet|wait for|auf acc:person kin vehicle|hni
denken|denkt|dachte|gedacht|think of|an acc:kin planned person|h0
sprechen|spricht|sprach|gesprochen|talk to|mit dat:person kin|hi
träumen|träumt|träumte|geträumt|dream of|von dat:trip home|h0
arbeiten|arbeitet|arbeitete|gearbeitet|work|none|hn
schlafen|schläft|schlief|geschlafen|sleep|none|hn
tanzen|tanzt|tanzte|getanzt|dance|none|hn
singen|singt|sang|gesungen|sing|acc:music|hni
lachen|lacht|lachte|gelacht|laugh about|über acc:tale|0
sich.erinnern|erinnert|erinnerte|erinnert|remember|an acc:kin trip note person|r0
sich.interessieren|interessiert|interessierte|interessiert|be interested in|für acc:offer show home|r0
sich.ärgern|ärgert|ärgerte|geärgert|be annoyed about|über acc:bill offer person|r0
sich.freuen|freut|freute|gefreut|look forward to|auf acc:planned show|rn0
sich.kümmern|kümmert|kümmerte|gekümmert|take care of|um acc:child animal|rh
fahren|fährt|fuhr|gefahren|travel|dir|shi
gehen|geht|ging|gegangen|go|dir|shi
fliegen|fliegt|flog|geflogen|fly|dir|s
reisen|reist|reiste|gereist|travel|dir|sh
wohnen|wohnt|wohnte|gewohnt|live|loc|
bleiben|bleibt|blieb|geblieben|stay|loc|shi
auf+stehen|steht|stand|gestanden|get up|none|shi0
an+rufen|ruft|rief|gerufen|call|acc:person kin|hi0
zurück+rufen|ruft|rief|gerufen|call =back|acc:person kin|i0
ein+kaufen|kauft|kaufte|gekauft|go shopping|none|hi
mit+bringen|bringt|brachte|gebracht|bring =along|acc:food drink instrument small gift|i
zurück+bringen|bringt|brachte|gebracht|bring =back|acc:text goods|i0
zurück+geben|gibt|gab|gegeben|give =back to|dat+acc:text goods small|i0
ab+holen|holt|holte|geholt|pick ~up|acc:person kin parcel|hi
ab+lehnen|lehnt|lehnte|gelehnt|reject|acc:offer|0
an+nehmen|nimmt|nahm|genommen|accept|acc:offer|i0
auf+nehmen|nimmt|nahm|genommen|record|acc:music show|i
mit+nehmen|nimmt|nahm|genommen|take =along|acc:luggage animal small|i0
ab+sagen|sagt|sagte|gesagt|cancel|acc:planned event|i0
auf+schreiben|schreibt|schrieb|geschrieben|write ~down|acc:note tale|i0
ein+laden|lädt|lud|geladen|invite|acc:person kin|i0
auf+räumen|räumt|räumte|geräumt|tidy ~up|acc:room|hni0
an+ziehen|zieht|zog|gezogen|put ~on|acc:clothes|i0
aus+ziehen|zieht|zog|gezogen|take ~off|acc:clothes|i0
an+probieren|probiert|probierte|probiert|try ~on|acc:clothes|ni
vor+bereiten|bereitet|bereitete|bereitet|prepare|acc:planned event|ni0
vor+lesen|liest|las|gelesen|read =aloud to|dat+acc:text tale|ni0
vor+stellen|stellt|stellte|gestellt|introduce to|dat+acc:kin own|0
ab+stellen|stellt|stellte|gestellt|park|acc:parkable|i
aus+stellen|stellt|stellte|gestellt|exhibit|acc:art|
vor+schlagen|schlägt|schlug|geschlagen|suggest|acc:trip sight|0
nach+schlagen|schlägt|schlug|geschlagen|look ~up|acc:note|i0
ein+packen|packt|packte|gepackt|pack|acc:clothes luggage gift|ni0
aus+packen|packt|packte|gepackt|unpack|acc:luggage parcel|ni0
weg+werfen|wirft|warf|geworfen|throw ~away|acc:food goods paper|i0
aus+füllen|füllt|füllte|gefüllt|fill ~in|acc:form|ni
ein+schalten|schaltet|schaltete|geschaltet|turn ~on|acc:device|i0
aus+schalten|schaltet|schaltete|geschaltet|turn ~off|acc:device|i0
zu+machen|macht|machte|gemacht|shut|acc:openable|i0
ein+schlafen|schläft|schlief|geschlafen|fall asleep|none|sh
auf+wachen|wacht|wachte|gewacht|wake up|none|sh0
an+kommen|kommt|kam|gekommen|arrive|loc|s
zurück+kommen|kommt|kam|gekommen|come back|none|s0
los+fahren|fährt|fuhr|gefahren|set off|none|si0
um+steigen|steigt|stieg|gestiegen|change trains|none|sh
fern+sehen|sieht|sah|gesehen|watch television|none|hn0
aus+gehen|geht|ging|gegangen|go out|none|sh0
teil+nehmen|nimmt|nahm|genommen|take part in|an dat:event|h0
zu+hören|hört|hörte|gehört|listen to|dat:|ni
"""

NAMES = [
    *[
        (name, "f")
        for name in ["Anna", "Maria", "Julia", "Sophie", "Laura", "Lena", "Emma", "Clara", "Eva", "Nora"]
    ],
    *[
        (name, "m")
        for name in [
            "Peter",
            "Paul",
            "Martin",
            "Daniel",
            "Stefan",
            "Michael",
            "Jan",
            "Karl",
            "Felix",
            "Oliver",
        ]
    ],
]
CITIES = {
    "Berlin": "Berlin",
    "Hamburg": "Hamburg",
    "München": "Munich",
    "Köln": "Cologne",
    "Wien": "Vienna",
    "Zürich": "Zurich",
    "Leipzig": "Leipzig",
    "Nürnberg": "Nuremberg",
    "Genf": "Geneva",
    "Paris": "Paris",
    "London": "London",
    "Rom": "Rome",
    "Prag": "Prague",
    "Warschau": "Warsaw",
}
COUNTRIES = {
    "Italien": "Italy",
    "Spanien": "Spain",
    "Frankreich": "France",
    "Österreich": "Austria",
    "Griechenland": "Greece",
    "Polen": "Poland",
    "Schweden": "Sweden",
}


@dataclass(frozen=True)
class Frame:
    """A verb with what it asks for.

    Attributes:
        kind: ``acc``, ``dat``, ``dat+acc``, ``prep``, ``dir``, ``loc`` or ``none``.
        preposition: German preposition and case of a prepositional object.
        objects: noun classes of the (accusative or prepositional) object.
        complement: fixed German words in front of the final verb (``"keine Zeit"``).
        receiver: English preposition of the dative object; empty for two bare objects.
    """

    verb: Verb
    english: str
    kind: str
    flags: str = ""
    objects: tuple[str, ...] = ()
    preposition: tuple[str, str] = ("", "")
    receiver: str = ""
    complement: str = ""


def _noun(line: str) -> Noun:
    word, gender, plural, english, english_plural, classes, *weak = line.split("|")
    mass = english_plural == "-"
    if mass or not english_plural:
        english_plural = english + "s"
    return Noun(
        word, gender, plural, english, english_plural, tuple(classes.split()), weak[0] if weak else "", mass
    )


def _adjective(line: str) -> Adjective:
    *words, classes = line.split("|")
    word, stem, comparative, superlative, english, english_comparative, english_superlative = words
    return Adjective(
        word,
        stem,
        comparative,
        superlative,
        english,
        english_comparative,
        english_superlative,
        tuple(classes.split()),
    )


def _frame(line: str) -> Frame:
    infinitive, third, preterite, participle, english, frame, flags = line.split("|")
    prefix, _, base = infinitive.removeprefix("sich.").rpartition("+")
    verb = Verb(prefix, base, third, preterite, participle, "sein" if "s" in flags else "haben", "r" in flags)
    kind, _, classes = frame.partition(":")
    preposition, _, case = kind.partition(" ")
    receiver = ""
    if kind == "dat+acc" and english.endswith(" to"):
        english, receiver = english.removesuffix(" to"), "to"
    if case:
        return Frame(verb, english, "prep", flags, tuple(classes.split()), (preposition, case))
    objects = ("person", "kin") if kind == "dat" else tuple(classes.split())
    return Frame(verb, english, kind, flags, objects, receiver=receiver)


NOUNS = [_noun(line) for line in _NOUNS.splitlines()]
ADJECTIVES = [_adjective(line) for line in _ADJECTIVES.splitlines()]
FRAMES = [_frame(line) for line in _VERBS.splitlines()]
NOUN = {noun.word: noun for noun in NOUNS}
FRAME = {frame.verb.infinitive: frame for frame in FRAMES}


def nouns_of(*classes: str) -> list[Noun]:
    """Nouns that belong to one of the classes, in table order."""
    return [noun for noun in NOUNS if set(classes) & set(noun.classes)]


def copula(complement: str, english: str, verb: str = "sein") -> Frame:
    """``copula("müde", "be tired")``, ``copula("keine Zeit", "have no time", "haben")``."""
    parts = {
        "sein": Verb("", "sein", "ist", "war", "gewesen", "sein"),
        "haben": Verb("", "haben", "hat", "hatte", "gehabt"),
        "werden": Verb("", "werden", "wird", "wurde", "worden", "sein"),
    }
    return Frame(parts[verb], english, "none", complement=complement)
