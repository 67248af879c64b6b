"""What a check found: things wrong, by how bad they are, and facts about what was looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

DAMAGE: Final = "damage"  # a member does not start on it, or serves what was not written
WARNING: Final = "warning"  # a member starts; somebody should know
NOTE: Final = "note"
ALIKE_MAX: Final = 10  # findings of one kind that are told one by one


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling. `where` is a file, a bucket or a directory."""

    level: str
    where: str
    problem: str
    advice: str = ""


@dataclass(slots=True)
class Report:
    """All that a check has to say. `facts` are by part, in the order in which they were found."""

    facts: dict[str, dict[str, object]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    _alike: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def is_sound(self) -> bool:
        return not any(finding.level == DAMAGE for finding in self.findings)

    def fact(self, part: str, name: str, value: object) -> None:
        self.facts.setdefault(part, {})[name] = value

    def damage(self, where: str, problem: str, advice: str, kind: str = "") -> None:
        self._add(Finding(DAMAGE, where, problem, advice), kind)

    def warn(self, where: str, problem: str, advice: str = "", kind: str = "") -> None:
        self._add(Finding(WARNING, where, problem, advice), kind)

    def note(self, where: str, problem: str, advice: str = "", kind: str = "") -> None:
        self._add(Finding(NOTE, where, problem, advice), kind)

    def _add(self, finding: Finding, kind: str) -> None:
        """Findings of the same `kind` are told up to a number, the others only counted."""
        if kind:
            self._alike[finding.level, finding.where, kind] += 1
            if self._alike[finding.level, finding.where, kind] > ALIKE_MAX:
                return
        self.findings.append(finding)

    def close(self) -> None:
        """Say how many there were that were not told."""
        for (level, where, kind), count in self._alike.items():
            if count > ALIKE_MAX:
                self.findings.append(Finding(level, where, f"{count - ALIKE_MAX} more of these: {kind}"))
        self._alike.clear()
