"""Feature gates: named switches for what is not yet, or no longer, the default, by etcd's names.

`--feature-gates=CompactHashCheck=true,AllBeta=false` sets single gates; `AllAlpha` and `AllBeta` set all
gates of a stage that are not set by name. Refusals are worded as etcd's (pkg/featuregate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyetcd.logs.gotext import GoValueError, parse_bool

ALPHA: Final = "ALPHA"
BETA: Final = "BETA"


@dataclass(frozen=True, slots=True)
class Feature:
    """What is known of a gate: whether it is on unless set, and how ripe it is."""

    default: bool
    stage: str


FEATURES: Final[Mapping[str, Feature]] = MappingProxyType(
    {
        "AllAlpha": Feature(False, ALPHA),
        "AllBeta": Feature(False, BETA),
        "CompactHashCheck": Feature(True, ALPHA),
        "FastLeaseKeepAlive": Feature(True, BETA),
        "InitialCorruptCheck": Feature(True, ALPHA),
        "LeaseCheckpoint": Feature(False, ALPHA),
        "LeaseCheckpointPersist": Feature(False, ALPHA),
        "PriorityRequest": Feature(False, ALPHA),
        "SetMemberLocalAddr": Feature(False, ALPHA),
        "StopGRPCServiceOnDefrag": Feature(False, ALPHA),
        "TxnModeWriteWithSharedBuffer": Feature(True, BETA),
    }
)
_STAGES: Final = {"AllAlpha": ALPHA, "AllBeta": BETA}


class FeatureError(ValueError):
    """A feature gate that does not exist or a value that is none; the text is etcd's."""


@dataclass(frozen=True, slots=True)
class FeatureGates:
    """The gates of one server. `explicit` holds those set by name or through AllAlpha and AllBeta."""

    explicit: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))

    def enabled(self, name: str) -> bool:
        """Whether a gate is on. KeyError when there is no such gate."""
        value = self.explicit.get(name)
        return FEATURES[name].default if value is None else value

    def with_text(self, text: str) -> FeatureGates:
        """These gates with the settings of `name=bool,name=bool` added. FeatureError with etcd's wording."""
        explicit = dict(self.explicit)
        settings = _parse(text)
        for name, value in settings.items():
            if name not in FEATURES:
                raise FeatureError(f"unrecognized feature gate: {name}")
            explicit[name] = value
        for name, stage in _STAGES.items():
            if name in settings:
                for other, feature in FEATURES.items():
                    if feature.stage == stage:
                        explicit.setdefault(other, settings[name])
        return FeatureGates(MappingProxyType(explicit))

    def __str__(self) -> str:
        """`name=bool` pairs of what was set, sorted, as etcd logs them."""
        return ",".join(f"{name}={str(value).lower()}" for name, value in sorted(self.explicit.items()))


def _parse(text: str) -> dict[str, bool]:
    settings: dict[str, bool] = {}
    for part in text.split(","):
        if part == "":
            continue
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not equals:
            raise FeatureError(f"missing bool value for {name}")
        try:
            settings[name] = parse_bool(value)
        except GoValueError as error:
            raise FeatureError(f"invalid value of {name}={value}, err: {error}") from None
    return settings
