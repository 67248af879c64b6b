"""The quorum transcripts: what a majority, or two, make of acknowledged indexes and votes."""

from __future__ import annotations

from collections.abc import Mapping

from datadriven import Block

from pyetcd.raft import quorum
from pyetcd.raft.quorum import EVERYTHING, Joint, Majority


def shown(index: int) -> str:
    return "∞" if index == EVERYTHING else str(index)


def draw(voters: Majority, indexes: Mapping[int, int]) -> str:
    """A bar for each voter, as long as the number of voters that are behind it."""
    if not voters:
        return "<empty majority quorum>"
    values = sorted(indexes.get(id, 0) for id in voters)
    lines = [" " * len(voters) + "    idx"]
    for id in sorted(voters):
        index = indexes.get(id, 0)
        bar = values.index(index)
        mark = "x" * bar + ">" + " " * (len(voters) - bar) if id in indexes else "?" + " " * len(voters)
        lines.append(f"{mark} {index:5d}    (id={id:x})")
    return "".join(f"{line}\n" for line in lines)


def counted(voters: Majority, indexes: Mapping[int, int]) -> int:
    """The committed index in another way: the highest one that enough voters have reached."""
    if not voters:
        return EVERYTHING
    known = [indexes[id] for id in voters if id in indexes]
    enough = [i for i in known if sum(other >= i for other in known) > len(voters) // 2]
    return max(enough, default=0)


def committed(left: Majority, right: Majority | None, indexes: Mapping[int, int]) -> str:
    if right is not None:
        index = Joint(left, right).committed(indexes)
        text = draw(left | right, indexes)
        if (other := Joint(right, left).committed(indexes)) != index:
            text += f"{shown(other)} <-- via symmetry\n"
        return f"{text}{shown(index)}\n"
    index = quorum.committed(left, indexes)
    text = draw(left, indexes)
    alternatives = [
        (counted(left, indexes), "via alternative computation"),
        (Joint(left, ()).committed(indexes), "via zero-joint quorum"),
        (Joint(left, left).committed(indexes), "via self-joint quorum"),
    ]
    # Who is behind the committed index does not count, so how far behind makes no difference.
    for id, own in indexes.items():
        if id in left and 0 < own < index:
            alternatives += [
                (quorum.committed(left, {**indexes, id: lower}), f"overlaying {id}->{lower}")
                for lower in (own - 1, 0)
            ]
    text += "".join(f"{shown(other)} <-- {how}\n" for other, how in alternatives if other != index)
    return f"{text}{shown(index)}\n"


def voted(left: Majority, right: Majority | None, votes: Mapping[int, bool]) -> str:
    if right is None:
        return f"{quorum.outcome(left, votes).value}\n"
    outcome, mirrored = Joint(left, right).vote(votes), Joint(right, left).vote(votes)
    note = "" if mirrored is outcome else f"{mirrored.value} <-- via symmetry\n"
    return f"{note}{outcome.value}\n"


def run(block: Block) -> str:
    values = {a.key: a.values for a in block.arguments}
    joint = "cfgj" in values
    left = [int(v) for v in values.get("cfg", ())]
    right = [int(v) for v in values.get("cfgj", ()) if v != "zero"]
    voters = list(dict.fromkeys([*left, *right]))
    given = values.get("votes" if block.command == "vote" else "idx", ())
    if len(given) != len(voters):
        return f"error: mismatched input (explicit or _) for voters {voters}: {list(given)}"
    said = {id: value for id, value in zip(voters, given, strict=True) if value != "_"}
    other = frozenset(right) if joint else None
    if block.command == "vote":
        return voted(frozenset(left), other, {id: value == "y" for id, value in said.items()})
    return committed(frozenset(left), other, {id: int(value) for id, value in said.items()})
