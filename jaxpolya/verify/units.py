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
_NO_NOUNS = frozenset(
    (
        "sin cos tan csc cot log exp max gcd lcm mod sup inf lim det and or if factorial squared cubed choose plus minus divided "
        "multiplied root th half halves third thirds fourths fifths sixths eighths ninths tenth tenths hundredth hundredths thousandth "
        "thousandths"
    ).split()
)
"""Words after a number that change its value."""
_SYMBOLS = frozenset("mLlgshVWJNAKCF")
"""Single letters that are units after a blank; `5 x` is a product."""


def agree(gold: str, answer: str) -> bool:
    """Whether two units may stand for each other: they may be missing or unknown; two known ones, and two powers, must be the same."""
    (first, first_power), (second, second_power) = _parted(gold), _parted(answer)
    if first_power and second_power and first_power != second_power:
        return False
    return UNITS.get(first) is None or UNITS.get(second) is None or UNITS[first] == UNITS[second]


def _parted(unit: str) -> tuple[str, str]:
    """A unit without its power, and the power where it has one."""
    base, _, power = unit.partition("^")
    for word, exponent in (("square ", "2"), ("sq ", "2"), ("cubic ", "3"), ("cu ", "3")):
        if base.startswith(word):
            return base.removeprefix(word), exponent
    return base, power


def is_unit(text: str, apart: bool) -> bool:
    """Whether what follows a number is a unit or a noun, and not a product of variables. apart: whether a blank stands between them."""
    tokens = [token for token in re.split(r"[\s/·*^]+|\\cdot|-?\d+", text) if token]
    return _NO_NOUNS.isdisjoint(map(str.casefold, tokens)) and any(_names_something(token, apart) for token in tokens)


def _names_something(token: str, apart: bool) -> bool:
    if len(token) == 1 and token.isascii():
        return token == "m" or (apart and token in _SYMBOLS)
    folded = token.casefold().strip(".")
    noun = len(folded) > (2 if apart else 3) and any(vowel in folded for vowel in "aeiouy")
    return noun or folded in UNITS or folded in _OTHERS
