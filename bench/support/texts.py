"""Sentences of about 16 tokens, each another one: what a server has answered before would tell nothing of its speed."""

import json
import random
from itertools import product
from pathlib import Path

WHO = [
    *("this morning I", "last night my sister", "on Friday our neighbour", "after lunch the new teacher"),
    *("all week long my father", "before the meeting she", "in the evening he", "since Monday my best friend"),
    *("at the station a stranger", "during the storm we", "as usual my old landlord", "yesterday the whole team"),
]
DID = [
    *("laughed about the letter", "cried over the broken phone", "shouted at the careful driver"),
    *("waited for a call that never came", "found the ring under the sofa", "lost the keys to the flat"),
    *("baked bread for everyone", "heard strange steps upstairs", "won the race by one second"),
    *("forgot the birthday again", "read the report without a word", "missed the last bus home"),
]
HOW = [
    *(
        "again",
        "at home",
        "in silence",
        "at last",
        "by accident",
        "on purpose",
        "in public",
        "alone",
        "twice",
        "at once",
    ),
    *("for nothing", "for fun"),
]
SO = [
    *("what a day", "it was lovely", "I am so tired of it", "that was a surprise", "it still scares me", "how unfair"),
    *(
        "I miss those days",
        "it made me proud",
        "nothing new there",
        "it was disgusting",
        "thank you all",
        "never again",
    ),
]


def sentences(count: int, seed: int = 1) -> list[str]:
    """So many different sentences, always the same ones for a seed."""
    every = [f"{who} {did} {how}, {so}".capitalize() for who, did, how, so in product(WHO, DID, HOW, SO)]
    return random.Random(seed).sample(every, count)


def write_bodies(path: Path, texts: list[str]) -> Path:
    """A JSON request body for each text, one a line: what a load generator reads."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path
