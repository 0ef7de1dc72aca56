"""English word forms: verbs, articles, possessives."""

IRREGULAR = {
    verb.split()[0]: (verb.split()[1], verb.split()[2])
    for verb in """\
be was been|become became become|begin began begun|break broke broken|bring brought brought|build built built
buy bought bought|catch caught caught|come came come|do did done|draw drew drawn|drink drank drunk|drive drove driven
eat ate eaten|fall fell fallen|feed fed fed|feel felt felt|find found found|fly flew flown|forget forgot forgotten
get got got|give gave given|go went gone|grow grew grown|hang hung hung|have had had|hear heard heard|hide hid hidden|shut shut shut
hold held held|keep kept kept|know knew known|leave left left|lend lent lent|lose lost lost|make made made
meet met met|pay paid paid|put put put|read read read|ride rode ridden|ring rang rung|run ran run|say said said
see saw seen|sell sold sold|send sent sent|set set set|shine shone shone|show showed shown|sing sang sung
sit sat sat|sleep slept slept|speak spoke spoken|spend spent spent|stand stood stood|swim swam swum
take took taken|teach taught taught|tell told told|think thought thought|throw threw thrown
understand understood understood|wake woke woken|wear wore worn|win won won|write wrote written|cut cut cut""".replace(
        "\n", "|"
    ).split("|")
}
DOUBLED = {
    "shut",
    "travel",
    "cancel",
    "plan",
    "stop",
    "chat",
    "jog",
    "swim",
    "put",
    "get",
    "set",
    "sit",
    "run",
    "begin",
    "win",
    "forget",
    "cut",
}
# spelled with a vowel but spoken with a consonant, and the reverse
CONSONANT_SOUND = ("uni", "use", "euro", "one")
VOWEL_SOUND = ("hour", "honest")
BE = {"present": ("am", "are", "is"), "past": ("was", "were", "was")}


def indefinite(phrase: str) -> str:
    """Put ``a`` or ``an`` before a phrase, by its first sound."""
    vowel = phrase[0].lower() in "aeiou" and not phrase.startswith(CONSONANT_SOUND)
    return ("an " if vowel or phrase.startswith(VOWEL_SOUND) else "a ") + phrase


def possessive(owner: str) -> str:
    """``my father's``, ``my parents'``."""
    return owner + ("'" if owner.endswith("s") else "'s")


def conjugate_en(verb: str, form: str, person: int = 3, plural: bool = False) -> str:
    """Form of one English verb word.

    Args:
        verb: base form.
        person: 1, 2 or 3; matters in the present, and for ``was``.
        plural: grammatical number; ``you`` counts as plural.
        form: ``"base"``, ``"present"``, ``"past"``, ``"participle"`` or ``"ing"``.
    """
    if form == "base":
        return verb
    if verb == "be" and form in BE:
        return BE[form][1] if plural else BE[form][person - 1]
    if form == "present":
        if plural or person != 3:
            return verb
        if verb == "have":
            return "has"
        if verb.endswith("y") and verb[-2] not in "aeiou":
            return verb[:-1] + "ies"
        return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")
    doubled = verb + verb[-1] if verb in DOUBLED else verb
    if form == "ing":
        return (verb[:-1] if verb.endswith("e") and verb != "be" else doubled) + "ing"
    if verb in IRREGULAR:
        return IRREGULAR[verb][0 if form == "past" else 1]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return doubled + "ed"


# German modal -> (English present, English past); a leading auxiliary takes no do-support.
MODALS = {
    "können": ("can", "be able to"),
    "müssen": ("have to", "have to"),
    "wollen": ("want to", "want to"),
    "sollen": ("be supposed to", "be supposed to"),
    "dürfen": ("be allowed to", "be allowed to"),
    "möchten": ("would like to", "would like to"),
}


def _finite(head: str, rest: str, tense: str, person: int, plural: bool, support: bool) -> tuple[str, str]:
    """(auxiliary, remainder) of a simple present or past."""
    if head in ("can", "could", "would", "will"):
        return head, rest
    if head == "be":
        return conjugate_en("be", tense, person, plural), rest
    if support:
        return conjugate_en("do", tense, person, plural), f"{head} {rest}"
    return "", f"{conjugate_en(head, tense, person, plural)} {rest}"


def verb_group(
    verb: str, tense: str, person: int, plural: bool, modal: str = "", support: bool = False
) -> tuple[str, str]:
    """Auxiliary (empty if there is none) and the rest of the verb group.

    Args:
        verb: head and fixed words, ``"take part in"``.
        tense: the meaning: ``habit``, ``now``, ``later``, ``past``, ``perfect``, ``since``, ``pluperfect``, ``would``.
        person: of the subject: 1, 2 or 3.
        plural: of the subject; ``you`` counts as plural.
        modal: German modal, with ``past`` or anything else for the present.
        support: whether negation or a question asks for ``do``.
    """
    head, _, rest = verb.partition(" ")
    if modal:
        words = MODALS[modal][tense == "past"]
        if modal == "können" and tense == "would":
            words = "could"
        first, _, more = words.partition(" ")
        return _finite(
            first, f"{more} {verb}".strip(), "past" if tense == "past" else "present", person, plural, support
        )
    if tense in ("habit", "past"):
        return _finite(head, rest, "present" if tense == "habit" else "past", person, plural, support)
    if tense == "now":
        return conjugate_en("be", "present", person, plural), f"{conjugate_en(head, 'ing')} {rest}"
    if tense in ("perfect", "since"):
        return conjugate_en("have", "present", person, plural), f"{conjugate_en(head, 'participle')} {rest}"
    if tense == "pluperfect":
        return "had", f"{conjugate_en(head, 'participle')} {rest}"
    return ("would" if tense == "would" else "will"), verb
