"""Commands with subcommands and flags, read the way cobra and pflag read them.

What scripts depend on: flags may stand anywhere, before the subcommand too; `--flag value`,
`--flag=value`, `-f value`, `-fvalue`; `--` ends them; a subcommand may be shortened to a prefix that fits
only one; errors have cobra's words. argparse can do little of this and takes longer to import than a
whole run may take.
"""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.flag import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUGGESTION_DISTANCE = 2


class FlagError(Exception):
    """A flag that is unknown, lacks its value or has a bad one. The message is pflag's."""


class ArgumentError(FlagError):
    """Arguments the command cannot do with. The message is cobra's."""


class UnknownCommand(Exception):
    """No subcommand of this name. The message is cobra's, suggestions included."""


class HelpWanted(Exception):
    """`--help` was among the flags, or the command only groups others."""

    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command


class Command:
    """A command and what belongs to it. Without `run` it only groups its subcommands.

    `use` begins with the name. `flags` are its own; `persistent` ones hold for its subcommands too.
    Suggestions keep the order of `commands`, help sorts them. `check` raises ArgumentError for arguments
    that are no good. Without `flags_in_use`, the usage does not say that there are flags. With `whole_name`
    nothing but the name is taken for it, and it is not suggested.
    """

    def __init__(
        self,
        use: str,
        short: str = "",
        run: Callable[[Invocation], None] | None = None,
        *,
        long: str = "",
        group: str = "",
        flags: Sequence[Flag] = (),
        persistent: Sequence[Flag] = (),
        commands: Sequence[Command] = (),
        groups: Sequence[tuple[str, str]] = (),
        hide_help: bool = False,
        check: Callable[[Command, list[str]], None] | None = None,
        flags_in_use: bool = True,
        whole_name: bool = False,
    ) -> None:
        self.use = use
        self.name = use.split(" ", 1)[0]
        self.short = short
        self.long = long
        self.run = run
        self.group = group
        self.groups = groups
        self.flags = list(flags)
        self.persistent = list(persistent)
        self.commands = list(commands)
        self.check = check
        self.flags_in_use = flags_in_use
        self.whole_name = whole_name
        self.parent: Command | None = None
        for command in self.commands:
            command.parent = self
        self.flags.append(Flag("help", "bool", False, f"help for {self.name}", "h", hidden=hide_help))

    @property
    def path(self) -> str:
        return f"{self.parent.path} {self.name}" if self.parent else self.name

    @property
    def root(self) -> Command:
        return self.parent.root if self.parent else self

    def inherited_flags(self) -> list[Flag]:
        """The persistent flags of all commands above."""
        flags: list[Flag] = []
        above = self.parent
        while above is not None:
            flags += above.persistent
            above = above.parent
        return flags

    def all_flags(self) -> list[Flag]:
        return [*self.flags, *self.persistent, *self.inherited_flags()]

    def find(self, name: str) -> Command | None:
        """The subcommand of this name, or the only one whose name begins so."""
        for command in self.commands:
            if command.name == name:
                return command
        fitting = [each for each in self.commands if each.name.startswith(name) and not each.whole_name]
        return fitting[0] if len(fitting) == 1 else None


class Invocation:
    """A command as it was called. `dash` is the number of arguments before `--`, or None without one."""

    def __init__(self, command: Command, args: list[str], dash: int | None, argv: list[str]) -> None:
        self.command = command
        self.args = args
        self.dash = dash
        self.argv = argv
        self.flags = {flag.name: flag for flag in reversed(command.all_flags())}

    def text(self, flag: str) -> str:
        value = self.flags[flag].value
        assert isinstance(value, str), f"--{flag} is no text"
        return value

    def number(self, flag: str) -> int:
        value = self.flags[flag].value
        assert isinstance(value, int), f"--{flag} is no number"
        return value

    def on(self, flag: str) -> bool:
        return bool(self.flags[flag].value)

    def items(self, flag: str) -> list[str]:
        value = self.flags[flag].value
        assert isinstance(value, list), f"--{flag} is no list"
        return value


def resolve(root: Command, argv: list[str]) -> tuple[Command, list[str]]:
    """The command that `argv` (without the program's name) calls, and its flags and arguments."""
    command, rest = root, argv
    while True:
        words = _without_flags(command, rest)
        found = command.find(words[0][1]) if words else None
        if found is None:
            break
        at = words[0][0]
        rest = rest[:at] + rest[at + 1 :]
        command = found
    if command is root and words:
        raise UnknownCommand(_unknown_command(root, words[0][1]))
    return command, rest


def exactly(count: int) -> Callable[[Command, list[str]], None]:
    """A `check` for commands of so many arguments."""

    def check(command: Command, args: list[str]) -> None:
        if len(args) != count:
            raise ArgumentError(f"accepts {count} arg(s), received {len(args)}")

    return check


exactly_one = exactly(1)


def one_or_two(command: Command, args: list[str]) -> None:
    """A `check` for commands of one argument, or two."""
    if not 1 <= len(args) <= 2:
        raise ArgumentError(f"accepts between 1 and 2 arg(s), received {len(args)}")


def at_least(count: int) -> Callable[[Command, list[str]], None]:
    """A `check` for commands of so many arguments or more."""

    def check(command: Command, args: list[str]) -> None:
        if len(args) < count:
            raise ArgumentError(f"requires at least {count} arg(s), only received {len(args)}")

    return check


def _without_flags(command: Command, args: list[str]) -> list[tuple[int, str]]:
    """The words among `args` that are neither flags nor their values, with their places.

    As in cobra, a flag that is unknown here is taken to have a value behind it.
    """
    flags = command.all_flags()
    words: list[tuple[int, str]] = []
    at = 0
    while at < len(args):
        word = args[at]
        at += 1
        if word == "--":
            break
        if word.startswith("--") and "=" not in word:
            takes_value = not any(flag.name == word[2:] and flag.kind == "bool" for flag in flags)
        elif word.startswith("-") and "=" not in word and len(word) == 2:
            takes_value = not any(flag.shorthand == word[1:] and flag.kind == "bool" for flag in flags)
        else:
            takes_value = False
            if word and not word.startswith("-"):
                words.append((at - 1, word))
        if takes_value:
            at += 1
    return words


def _unknown_command(root: Command, name: str) -> str:
    message = f"unknown command {gotext.quote(name)} for {gotext.quote(root.path)}"
    close = [
        command.name
        for command in root.commands
        if command.name != "help" and not command.whole_name and _is_close(name.lower(), command.name.lower())
    ]
    if close:
        message += "\n\nDid you mean this?\n" + "".join(f"\t{suggestion}\n" for suggestion in close)
    return message


def _is_close(name: str, other: str) -> bool:
    return other.startswith(name) or _distance(name, other) <= SUGGESTION_DISTANCE


def _distance(a: str, b: str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def parse(command: Command, args: list[str], argv: list[str]) -> Invocation:
    """Set the command's flags from `args`; what is left are its arguments. FlagError or HelpWanted."""
    by_name = {flag.name: flag for flag in reversed(command.all_flags())}
    by_letter = {flag.shorthand: flag for flag in by_name.values() if flag.shorthand}
    rest = list(args)
    plain: list[str] = []
    dash: int | None = None
    while rest:
        word = rest.pop(0)
        if word == "--":
            dash = len(plain)
            plain += rest
            break
        if word.startswith("--"):
            _long_flag(by_name, word, rest)
        elif word.startswith("-") and len(word) > 1:
            _short_flags(by_letter, word, rest)
        else:
            plain.append(word)
    if by_name["help"].value:
        raise HelpWanted(command)
    if command.check is not None:
        command.check(command, plain)
    missing = [f'"{flag.name}"' for flag in command.flags if flag.required and not flag.changed]
    if missing:
        raise FlagError(f"required flag(s) {', '.join(sorted(missing))} not set")
    return Invocation(command, plain, dash, argv)


def _long_flag(flags: dict[str, Flag], word: str, rest: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if not name or name[0] in "-=":
        raise FlagError(f"bad flag syntax: {word}")
    flag = flags.get(name)
    if flag is None:
        raise FlagError(f"unknown flag: --{name}")
    if equals:
        _set(flag, value)
    elif flag.kind == "bool":
        _set(flag, "true")
    elif rest:
        _set(flag, rest.pop(0))
    else:
        raise FlagError(f"flag needs an argument: --{name}")


def _short_flags(flags: dict[str, Flag], word: str, rest: list[str]) -> None:
    """`-w json`, `-wjson`, `-w=json`, and several switches in one word. Go looks at bytes, not at letters."""
    letters = word[1:].encode("utf-8", "surrogateescape")
    while letters:
        seen, letter, letters = letters, chr(letters[0]), letters[1:]
        flag = flags.get(letter)
        if flag is None:
            raise FlagError(f"unknown shorthand flag: {gotext.quote_rune(letter)} in -{_text(seen)}")
        if letters[:1] == b"=" and len(letters) > 1:
            _set(flag, _text(letters[1:]))
            return
        if flag.kind == "bool":
            _set(flag, "true")
        elif letters:
            _set(flag, _text(letters))
            return
        elif rest:
            _set(flag, rest.pop(0))
        else:
            raise FlagError(f"flag needs an argument: {gotext.quote_rune(letter)} in -{_text(seen)}")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _set(flag: Flag, text: str) -> None:
    try:
        flag.set(text)
    except gotext.GoValueError as error:
        shown = f"-{flag.shorthand}, --{flag.name}" if flag.shorthand else f"--{flag.name}"
        raise FlagError(f'invalid argument {gotext.quote(text)} for "{shown}" flag: {error}') from None
