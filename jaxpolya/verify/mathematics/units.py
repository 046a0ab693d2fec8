"""The units that may follow a number, and those that contradict each other."""

import re

UNITS = {
    spelling: unit
    for unit, spellings in {
        "mm": "mm millimeter millimeters", "cm": "cm centimeter centimeters", "m": "m meter meters metre metres",
        "km": "km kilometer kilometers", "inch": "in inch inches", "foot": "ft foot feet", "yard": "yd yds yard yards",
        "mile": "mi mile miles", "mg": "mg milligram milligrams", "gram": "g gm gram grams", "kg": "kg kgs kilogram kilograms",
        "pound": "lb lbs pound pounds", "ounce": "oz ounce ounces", "millilitre": "ml milliliter milliliters millilitre millilitres",
        "litre": "l liter liters litre litres", "gallon": "gal gallon gallons", "second": "s sec secs second seconds",
        "minute": "min mins minute minutes", "hour": "h hr hrs hour hours", "day": "day days", "week": "wk wks week weeks",
        "month": "mo mos month months", "year": "yr yrs year years", "dollar": "dollar dollars usd", "cent": "cent cents ¢",
        "degree": "deg degree degrees", "radian": "rad radian radians", "mph": "mph", "am": "am a.m a.m.", "pm": "pm p.m p.m.",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
"""Units that contradict each other where they differ."""

_OTHERS = frozenset(
    (
        "dm nm µm um sq sqft ft2 m2 cm2 km2 ha ac cl dl qt qts pt pts cc tsp tbsp cup t ton tons ms kph kmh km/h m/s mi/h ft/s fps j kj "
        "cal kcal wh kwh ev w kw mw hp v kv a ma ω ohm n kn pa kpa atm bar psi hz khz mhz ghz b kb mb gb tb bit mol m/min m^2 c f k eur "
        "gbp inr rmb cny jpy rs pcs pc ea doz px rpm ppm db men boy boys kid kids per each a an the of °c °f °k"
    ).split()
)
_DOUBTS = frozenset(
    (
        "not no never nope none wrong false incorrect untrue cannot can't isn't fails fail maybe perhaps possibly or unless if except "
        "either neither nor is are was be"
    ).split()
)
_CHANGES = _DOUBTS | frozenset(
    (
        "sin cos tan csc cot log exp max gcd lcm mod sup inf lim det and plus minus negative divided multiplied doubled tripled twice "
        "thrice squared cubed factorial choose inverse root th least most below basis gross score mil zero one two three four five six "
        "seven eight nine ten eleven twelve twenty thirty hundred thousand million billion half halves third thirds fourths fifth "
        "fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths"
    ).split()
)
"""Words after a number that deny it or change its value."""
_SYMBOLS = frozenset("mLlgshVWJNAKCF")
"""Single letters that are units after a blank; `5 x` is a product."""


def agree(gold: str, answer: str) -> bool:
    """Whether two units may stand for each other: they may be missing or unknown; known ones must be the same, with their powers."""
    first, second = _parts(gold), _parts(answer)
    return first is None or second is None or first == second


_SPEEDS = {"mph": "mile/hour", "kph": "km/hour", "kmh": "km/hour", "kmph": "km/hour", "fps": "foot/second"}


def _parts(unit: str) -> tuple[tuple[str, str], ...] | None:
    """(base, power) of each factor, those below a bar with `-`; None where one of them isn't known."""
    unit = re.sub(r"\b(?:square|sq) (\w+)", r"\1^2", re.sub(r"\b(?:cubic|cu) (\w+)", r"\1^3", unit))
    parts = []
    for place, part in enumerate(re.split(r"/| per ", _SPEEDS.get(unit, unit))):
        for factor in re.split(r"[·*\s]+|\\cdot", part.strip()):
            base, _, power = factor.partition("^")
            if base not in UNITS:
                return None
            parts.append((UNITS[base], "-" * bool(place) + (power or "1")))
    return tuple(sorted(parts))


def doubts(text: str) -> bool:
    """Whether words deny what they stand beside, or take it back."""
    return not _DOUBTS.isdisjoint(re.findall(r"[a-z']+", text.casefold()))


def changes(text: str) -> bool:
    """Whether words after a number deny it or change its value: 7 "squared", 7 "thirds", 7 "is wrong"."""
    return not _CHANGES.isdisjoint(re.findall(r"[a-z']+", text.casefold()))


def is_unit(text: str, apart: bool) -> bool:
    """Whether what follows a number is a unit or a noun, and not a product of variables. apart: whether a blank stands between them."""
    tokens = [token for token in re.split(r"[\s/·*^]+|\\cdot|-?\d+", text) if token]
    single = [token for token in tokens if len(token) == 1 and token.isascii()]
    variables = any(not _names_something(token, apart) for token in single if token != "a")
    return not changes(text) and not variables and any(_names_something(token, apart) for token in tokens)


def _names_something(token: str, apart: bool) -> bool:
    if len(token) == 1 and token.isascii():
        return token == "m" or (apart and token in _SYMBOLS)
    folded = token.casefold().strip(".")
    noun = len(folded) > (2 if apart else 3) and any(vowel in folded for vowel in "aeiouy")
    return noun or folded in UNITS or folded in _OTHERS
