"""Parsing of flags as Go's `flag` package does it, and of the `ETCD_*` variables beside them.

`-a`, `--a`, `--a=b`, `--a b`; a bare boolean is true and takes no separate value; the last of several wins;
the first argument that is no flag ends the flags, and so does `--`. A value is read as soon as it is met, so
that the first mistake on the line is the one reported. What was set by flag or variable ends up in a
`Settings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pyetcd import logs
from pyetcd.cli.etcd.flag_table import BY_NAME, FLAGS, Flag, Kind
from pyetcd.cluster.urls import Url, UrlError, parse_urls
from pyetcd.logs import quote
from pyetcd.logs.gotext import (
    GoRangeError,
    GoValueError,
    parse_bool,
    parse_duration_ns,
    parse_int,
    parse_uint,
)
from pyetcd.member.features import FeatureError, FeatureGates

Value = str | bool | int | float | tuple[str, ...] | tuple[Url, ...] | FeatureGates

SECRETS: Final = frozenset(("discovery-password", "discovery-user"))

_log = logs.get("flags")


class FlagError(Exception):
    """A mistake on the command line: print it with the usage and leave with 2. The text is Go's."""


class HelpWanted(Exception):
    """-h or --help."""


class VariableError(Exception):
    """A mistake in an environment variable: log it and leave with 1."""


class UrlKeyError(Exception):
    """A list of URLs in the configuration file that cannot be read: etcd prints this to stderr and leaves
    with 1."""


class VariableShadowed(Exception):
    """A variable and a flag set the same thing. etcd refuses to choose."""

    def __init__(self, variable: str) -> None:
        super().__init__(
            "conflicting environment variable is shadowed by corresponding command-line flag "
            "(either unset environment variable or disable flag))"
        )
        self.variable = variable


@dataclass(slots=True)
class Settings:
    """What was given: values by flag name, as read; the names themselves; and what stood after the flags.

    A flag can be given without a value to show for it: an empty list of URLs leaves the default.
    """

    values: dict[str, Value] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    rest: list[str] = field(default_factory=list)

    def set(self, flag: Flag, text: str) -> None:
        """Read a value. GoValueError, UrlError or FeatureError when it is none."""
        value = read_value(flag, text, self.values.get(flag.name))
        self.given.add(flag.name)
        if value is not None:
            self.values[flag.name] = value


def parse_arguments(arguments: Sequence[str]) -> Settings:
    """Flags of a command line, without the program's name. FlagError or HelpWanted."""
    settings = Settings()
    pending = list(arguments)
    while pending:
        argument = pending[0]
        if len(argument) < 2 or not argument.startswith("-"):
            break
        pending.pop(0)
        if argument == "--":
            break
        _take(argument, pending, settings)
    settings.rest = pending
    return settings


def _take(argument: str, pending: list[str], settings: Settings) -> None:
    body = argument[2:] if argument.startswith("--") else argument[1:]
    if body == "" or body[0] in "-=":
        raise FlagError(f"bad flag syntax: {argument}")
    name, equals, text = body.partition("=")
    flag = BY_NAME.get(name)
    if flag is None:
        if name in ("h", "help"):
            raise HelpWanted
        raise FlagError(f"flag provided but not defined: -{name}")
    if flag.is_bool:
        text = text if equals else "true"
    elif not equals:
        if not pending:
            raise FlagError(f"flag needs an argument: -{name}")
        text = pending.pop(0)
    try:
        settings.set(flag, text)
    except (GoValueError, UrlError, FeatureError) as error:
        if flag.kind is Kind.BOOL:
            raise FlagError(f"invalid boolean value {quote(text)} for -{name}: {error}") from None
        raise FlagError(f"invalid value {quote(text)} for flag -{name}: {error}") from None


def read_value(flag: Flag, text: str, before: Value | None) -> Value | None:
    """The value a flag's text stands for; None where etcd keeps what was there. `before`: set earlier on."""
    kind = flag.kind
    if kind is Kind.STRING:
        return text
    if kind in (Kind.BOOL, Kind.INT, Kind.UINT, Kind.MILLISECONDS, Kind.DURATION):
        return _read_number(kind, text)
    if kind is Kind.UINT32:
        return parse_uint(text, 32)
    if kind is Kind.URLS:
        # An empty list is accepted and changes nothing: so does etcd, whatever was meant.
        return parse_unique_urls(text) if text else None
    if kind is Kind.ORIGINS:
        return (text,) if text == "*" else tuple(url.text for url in parse_unique_urls(text))
    if kind is Kind.STRINGS:
        return tuple(text.split(","))
    if kind is Kind.UNIQUE:
        return tuple(sorted(set(text.split(","))))
    if kind is Kind.FEATURES:
        gates = before if isinstance(before, FeatureGates) else FeatureGates()
        return gates.with_text(text)
    return _read_choice(flag, text, before)


def parse_unique_urls(text: str) -> tuple[Url, ...]:
    """Comma-separated URLs, sorted, each once. UrlError."""
    return tuple({url.text: url for url in parse_urls(text.split(","))}.values())


def _read_number(kind: Kind, text: str) -> bool | int | float:
    # The flag package hides the parsers' own texts behind these two.
    try:
        if kind is Kind.BOOL:
            return parse_bool(text)
        if kind is Kind.INT:
            return parse_int(text)
        if kind is Kind.DURATION:
            return parse_duration_ns(text) / 1e9
        return parse_uint(text)
    except GoRangeError:
        raise GoValueError("value out of range") from None
    except GoValueError:
        raise GoValueError("parse error") from None


def _read_choice(flag: Flag, text: str, before: Value | None) -> Value | None:
    if flag.kind is Kind.CHOICE:
        if text not in flag.choices:
            raise GoValueError("invalid value")
        return text
    if flag.kind is Kind.CHOICES:
        chosen = before if isinstance(before, tuple) else ()
        for part in text.split(","):
            if part not in flag.choices:
                raise GoValueError(f"invalid value {quote(part)}")
        return tuple(sorted([*map(str, chosen), *text.split(",")]))
    assert flag.kind is Kind.IGNORED, flag
    return True


def add_environment(settings: Settings, environment: Mapping[str, str]) -> None:
    """Take what the environment sets; log unknown ETCD_ variables. VariableError or VariableShadowed."""
    given = {BY_NAME[name].variable for name in settings.given}
    used: set[str] = set()
    failure: VariableError | None = None
    version = environment.get("ETCD_VERSION", "")
    if version:
        _log.warn("cannot set special environment variable", {"key": "ETCD_VERSION", "value": version})
    for flag in sorted(FLAGS, key=lambda flag: flag.name):
        text = environment.get(flag.variable, "")
        if flag.variable in given or text == "" or flag.name == "version":
            continue
        used.add(flag.variable)
        try:
            settings.set(flag, text)
        except (GoValueError, UrlError, FeatureError) as error:
            failure = VariableError(f"invalid value {quote(text)} for {flag.variable}: {error}")
            continue
        shown = "***" if flag.name in SECRETS else text
        _log.info(
            "recognized and used environment variable",
            {"variable-name": flag.variable, "variable-value": shown},
        )
    _look_at_the_rest(environment, given, used)
    if failure is not None:
        raise failure


def _look_at_the_rest(environment: Mapping[str, str], given: set[str], used: set[str]) -> None:
    for name, text in environment.items():
        if name in used or name == "ETCD_VERSION":
            continue
        if name in given:
            raise VariableShadowed(name)
        if name.startswith("ETCD_"):
            # Images of etcd set variables of their own, passwords among them (ETCD_ROOT_PASSWORD).
            shown = "***" if "PASSWORD" in name or "SECRET" in name else text
            _log.warn("unrecognized environment variable", {"environment-variable": f"{name}={shown}"})
