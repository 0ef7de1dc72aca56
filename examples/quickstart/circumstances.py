"""When, where and how: tables of adverbials, and which verbs they suit."""

from phrases import Adverbial

WEEKDAYS = dict(
    zip(
        ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        strict=True,
    )
)
MONTHS = dict(
    zip(
        [
            "Januar",
            "Februar",
            "März",
            "April",
            "Mai",
            "Juni",
            "Juli",
            "August",
            "September",
            "Oktober",
            "November",
            "Dezember",
        ],
        [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
        strict=True,
    )
)
DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _adverbials(table: str, mid: bool = False) -> list[Adverbial]:
    return [Adverbial(de, en, mid) for de, en in (line.split("|") for line in table.strip().splitlines())]


TIMES = {
    "past": _adverbials("""\
gestern|yesterday
vorgestern|the day before yesterday
gestern Abend|yesterday evening
gestern Nachmittag|yesterday afternoon
heute Morgen|this morning
letzte Woche|last week
letzten Monat|last month
letztes Jahr|last year
letzten Sommer|last summer
am letzten Wochenende|last weekend
nach der Arbeit|after work
vor dem Frühstück|before breakfast
"""),
    "later": _adverbials("""\
morgen|tomorrow
übermorgen|the day after tomorrow
morgen Abend|tomorrow evening
morgen Nachmittag|tomorrow afternoon
heute Abend|this evening
nächste Woche|next week
nächsten Monat|next month
nächstes Jahr|next year
nächsten Sommer|next summer
am nächsten Wochenende|next weekend
nach dem Mittagessen|after lunch
bald|soon
"""),
    "habit": _adverbials("""\
jeden Tag|every day
jeden Morgen|every morning
jeden Abend|every evening
jede Woche|every week
jeden Monat|every month
am Wochenende|at the weekend
zweimal in der Woche|twice a week
im Sommer|in summer
im Winter|in winter
abends|in the evening
""")
    + _adverbials("oft|often\nmanchmal|sometimes\nmeistens|usually\nselten|rarely\nimmer|always", mid=True)
    * 2,
    "now": _adverbials("gerade|right now\nim Moment|at the moment\njetzt|now"),
}
# noun | preposition of place | of direction | English place | English direction
PLACES = [
    tuple(line.split("|"))
    for line in """\
Park|in|in|in the park|to the park
Bahnhof|an|zu|at the station|to the station
Flughafen|an|zu|at the airport|to the airport
Schule|in|zu|at school|to school
Markt|auf|auf|at the market|to the market
Bibliothek|in|in|in the library|to the library
Büro|in|in|at the office|to the office
Hotel|in|zu|at the hotel|to the hotel
Theater|in|in|at the theatre|to the theatre
Garten|in|in|in the garden|into the garden
Universität|an|zu|at the university|to the university
Strand|an|an|at the beach|to the beach
See|an|an|at the lake|to the lake
Café|in|in|in the café|to the café
Krankenhaus|in|in|in the hospital|to the hospital
Stadt|in|in|in the city|to the city
""".splitlines()
]
PLACE_GENDER = dict(
    zip(
        [place[0] for place in PLACES],
        ["m", "m", "m", "f", "m", "f", "n", "n", "n", "m", "f", "m", "m", "n", "n", "f"],
        strict=True,
    )
)
BY = _adverbials(
    "mit dem Zug|by train\nmit dem Bus|by bus\nmit dem Auto|by car\nmit dem Fahrrad|by bicycle\nmit dem Schiff|by ship"
)
WITH = {
    *[
        "einkaufen",
        "ausgehen",
        "tanzen",
        "essen",
        "trinken",
        "reisen",
        "fahren",
        "besuchen",
        "spielen",
        "arbeiten",
        "wohnen",
        "teilnehmen",
    ],
    *["fernsehen", "singen", "bleiben", "vorbereiten"],
}
HOW = _adverbials("langsam|slowly\nschnell|quickly\nsorgfältig|carefully\nheimlich|secretly\nallein|alone")
CAREFULLY = {
    *[
        "lesen",
        "schreiben",
        "putzen",
        "waschen",
        "reparieren",
        "übersetzen",
        "zeichnen",
        "einpacken",
        "auspacken",
        "aufräumen",
    ],
    *["ausfüllen", "vorbereiten", "abstellen"],
}
ONGOING = {
    "wohnen": "live",
    "arbeiten": "work",
    "suchen": "look for",
    "warten": "wait for",
    "schlafen": "sleep",
}
LONG = ("Woche", "Monat", "Jahr", "Sommer")
LASTING = {
    *[
        "schreiben",
        "kaufen",
        "verkaufen",
        "besuchen",
        "treffen",
        "malen",
        "spielen",
        "wohnen",
        "arbeiten",
        "bleiben",
        "fahren",
        "fliegen",
        "reisen",
    ],
    *[
        "ausstellen",
        "übersetzen",
        "schenken",
        "helfen",
        "gehören",
        "zurückkommen",
        "teilnehmen",
        "reparieren",
        "abholen",
        "einladen",
    ],
}
