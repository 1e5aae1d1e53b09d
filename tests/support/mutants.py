"""Damaged versions of a file, by seed."""

from __future__ import annotations

import random


def mutant(data: bytes, seed: int) -> tuple[str, bytes]:
    """What was done, and the damaged bytes. The same seed gives the same damage."""
    dice = random.Random(seed)
    kind = dice.choice(("bit", "byte", "bytes", "cut", "hole", "splice", "zeros", "swap", "length", "tail"))
    made = bytearray(data)
    # Half of the damage is where the structure is: pickles and headers are a small part of a file of weights.
    place = dice.randrange(len(made)) if dice.random() < 0.5 else _structural(data, dice)
    span = min(len(made) - place, dice.choice((1, 2, 4, 8, 64, 1000)))
    if kind == "bit":
        made[place] ^= 1 << dice.randrange(8)
    elif kind == "byte":
        made[place] = dice.randrange(256)
    elif kind == "bytes":
        made[place : place + span] = dice.randbytes(span)
    elif kind == "cut":
        del made[place:]
    elif kind == "hole":
        del made[place : place + span]
    elif kind == "splice":
        other = dice.randrange(len(made))
        made[place : place + span] = made[other : other + span]
    elif kind == "zeros":
        made[place : place + span] = bytes(span)
    elif kind == "swap":
        other = _structural(data, dice)
        made[place], made[other] = made[other], made[place]
    elif kind == "length":
        made[place : place + 4] = dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)).to_bytes(4, "little")
    else:
        made += dice.randbytes(span)
    return f"{kind} at {place} ({span})", bytes(made)


def _structural(data: bytes, dice: random.Random) -> int:
    """A place in a pickle, a header or a directory."""
    marks = [place for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"torch._utils", b"storage", b"\x80\x02")
             if (place := data.find(mark, dice.randrange(len(data)))) >= 0]  # fmt: skip
    return min(len(data) - 1, (dice.choice(marks) if marks else 0) + dice.randrange(64))
