"""What language a text is in, where that can be told without a model. Pure."""

from collections.abc import Sequence

# The languages that have a list of blocked words, by the names of their files.
LANGUAGES = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "nl": "Dutch",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
}
# Words that are frequent in one of these languages and rare in the others.
FUNCTION_WORDS = {
    "English": {"the", "and", "is", "was", "of", "to", "you", "my", "this", "it"},
    "German": {"der", "die", "das", "und", "ist", "nicht", "ich", "ein", "mit", "auf"},
    "French": {"le", "la", "les", "et", "est", "je", "pas", "une", "des", "pour"},
    "Spanish": {"el", "los", "las", "y", "es", "que", "una", "por", "con", "para"},
    "Italian": {"il", "di", "che", "è", "non", "per", "una", "sono", "gli", "della"},
    "Dutch": {"het", "een", "van", "niet", "ik", "dat", "voor", "zijn", "wij", "maar"},
    "Portuguese": {"o", "os", "uma", "não", "que", "em", "um", "para", "com", "é"},
    "Turkish": {"bir", "ve", "bu", "çok", "için", "ama", "değil", "ben", "gibi", "daha"},
}
_BY_SCRIPT = {"Arabic": "Arabic", "Hebrew": "Hebrew", "Greek": "Greek", "Hangul": "Korean"}
LEAST_HITS = 2
WORDS_READ = 100


def language_of(words: Sequence[str], script: str) -> str:
    """A rough guess: by the script, or for Latin by function words; "" where nothing tells, or two languages are as
    likely."""
    if script != "Latin":
        return _BY_SCRIPT.get(script, "")
    present = {word.lower() for word in words[:WORDS_READ]}
    hits = {language: len(present & known) for language, known in FUNCTION_WORDS.items()}
    best = max(hits, key=hits.__getitem__)
    is_told = hits[best] >= LEAST_HITS and list(hits.values()).count(hits[best]) == 1
    return best if is_told else ""
