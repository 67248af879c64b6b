"""Completion scripts, made from the tree of commands.

The scripts are static: they hold the names of all commands and flags, and the values of flags that have a
known few, so that completing a word starts no Python. Any other word is left to the shell, which offers file
names.
"""

from __future__ import annotations

from pyetcd.cli.command import Command
from pyetcd.cli.completion import SHELLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyetcd.cli.flag import Flag


def script(root: Command, shell: str) -> str:
    makers: dict[str, Callable[[Command], str]] = {
        "bash": _bash,
        "zsh": _zsh,
        "fish": _fish,
        "powershell": _powershell,
    }
    return makers[shell](root)


def _commands(command: Command, path: str = "") -> Iterator[tuple[str, Command]]:
    """All commands with the path that leads to them: "" for the root, " lease grant"."""
    yield path, command
    for sub in sorted(command.commands, key=lambda each: each.name):
        yield from _commands(sub, f"{path} {sub.name}")


def _names(command: Command) -> list[str]:
    """Of subcommands; those of shells and of commands may follow `completion` and `help`."""
    if command.name == "completion":
        return list(SHELLS)
    return sorted(sub.name for sub in (command.root if command.name == "help" else command).commands)


def _words(command: Command) -> list[str]:
    """What may follow: names and all flags, those of the commands above included."""
    return [*_names(command), *sorted({f"--{flag.name}" for flag in command.all_flags()})]


def _choices(root: Command) -> Iterator[tuple[str, str, Flag]]:
    """Flags with a known few values: the path of their command, how the flag is written, the flag.

    Those of the root hold for every command; their path is "".
    """
    for path, command in _commands(root):
        for flag in [*command.flags, *command.persistent]:
            if flag.choices:
                names = [f"--{flag.name}", *([f"-{flag.shorthand}"] if flag.shorthand else [])]
                for name in names:
                    yield path, name, flag


def _values(root: Command, step: str) -> list[str]:
    """`case` branches by path and flag: `step` shows how to offer the values."""
    lines = []
    for path, name, flag in _choices(root):
        pattern = f'"{path} {name}"' if path else f'*" {name}"'
        lines.append(f"        {pattern}) {step.format(' '.join(flag.choices))} ;;")
    return lines


def _walk(root: Command, step: str) -> list[str]:
    """`case` branches that follow the commands on the line: `step` shows how to go on to a path."""
    return [f'            "{path}") {step.format(path)} ;;' for path, _ in _commands(root) if path]


def _bash(root: Command) -> str:
    name = root.name
    function = f"_{name}_complete"
    lines = [
        f"# bash completion for {name}",
        f"{function}() {{",
        '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD - 1]}"',
        '    local path="" words="" i',
        '    if [[ $current == "=" ]]; then',
        '        current=""',
        '    elif [[ $previous == "=" ]]; then',
        '        previous="${COMP_WORDS[COMP_CWORD - 2]}"',
        "    fi",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        case "$path ${COMP_WORDS[i]}" in',
        *_walk(root, 'path="{}"'),
        "        esac",
        "    done",
        '    case "$path $previous" in',
        *_values(root, 'COMPREPLY=($(compgen -W "{}" -- "$current")); return'),
        "    esac",
        '    case "$path" in',
        *(f'        "{path}") words="{" ".join(_words(command))}" ;;' for path, command in _commands(root)),
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        f"complete -o default -F {function} {name}",
    ]
    return "\n".join(lines) + "\n"


def _zsh(root: Command) -> str:
    name = root.name
    lines = [
        f"#compdef {name}",
        f"compdef _{name} {name}",
        f"_{name}() {{",
        '    local where="" previous="${words[CURRENT-1]}" i',
        "    local -a candidates",
        "    for ((i = 2; i < CURRENT; i++)); do",
        '        case "$where ${words[i]}" in',
        *_walk(root, 'where="{}"'),
        "        esac",
        "    done",
        '    if [[ "$PREFIX" == --*=* ]]; then',
        '        previous="${PREFIX%%=*}"',
        "        compset -P '*='",
        "    fi",
        '    case "$where $previous" in',
        *_values(root, "compadd {}; return"),
        "    esac",
        '    case "$where" in',
        *(
            f'        "{path}") candidates=({" ".join(_words(command))}) ;;'
            for path, command in _commands(root)
        ),
        "    esac",
        "    compadd -a candidates",
        "    _files",
        "}",
        f'if [ "$funcstack[1]" = "_{name}" ]; then',
        f"    _{name}",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def _fish(root: Command) -> str:
    name = root.name
    paths = " ".join(f"'{path}'" for path, _ in _commands(root) if path)
    lines = [
        f"# fish completion for {name}",
        f"function __{name}_at",
        "    set -l path",
        "    for word in (commandline -opc)[2..]",
        f"        if contains -- \"$path $word\" {paths}",
        '            set path "$path $word"',
        "        end",
        "    end",
        '    test "$path" = "$argv[1]"',
        "end",
        *(_fish_flag(f"complete -c {name}", flag) for flag in root.persistent),
    ]
    for path, command in _commands(root):
        here = f"complete -c {name} -n \"__{name}_at '{path}'\""
        told = {sub.name: sub.short for sub in command.commands}
        lines += [f"{here} -a {each} -d {_fish_quoted(told.get(each, ''))}" for each in _names(command)]
        flags = (flag for flag in command.all_flags() if flag not in root.persistent)
        lines += [_fish_flag(here, flag) for flag in sorted(flags, key=lambda each: each.name)]
    return "\n".join(lines) + "\n"


def _fish_flag(here: str, flag: Flag) -> str:
    short = f" -s {flag.shorthand}" if flag.shorthand else ""
    value = "" if flag.kind == "bool" else " -r"
    if flag.choices:
        value = f" -x -a {_fish_quoted(' '.join(flag.choices))}"
    return f"{here} -l {flag.name}{short}{value} -d {_fish_quoted(flag.usage)}"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _powershell(root: Command) -> str:
    name = root.name
    cases = [
        f"        '{path}' {{ @({', '.join(f'{chr(39)}{word}{chr(39)}' for word in _words(command))}) }}"
        for path, command in _commands(root)
    ]
    paths = ", ".join(f"'{path}'" for path, _ in _commands(root))
    values = [
        f"        '{path or '*'} {name}' {{ @({', '.join(repr(value) for value in flag.choices)}) }}"
        for path, name, flag in _choices(root)
    ]
    lines = [
        f"# PowerShell completion for {name}",
        f"Register-ArgumentCompleter -Native -CommandName '{name}' -ScriptBlock {{",
        "    param($wordToComplete, $commandAst, $cursorPosition)",
        f"    $paths = @({paths})",
        "    $given = @($commandAst.CommandElements |",
        "        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |",
        "        ForEach-Object { $_.ToString() })",
        "    $path = ''",
        "    foreach ($word in $given | Select-Object -Skip 1) {",
        '        if ($paths -ccontains "$path $word") { $path = "$path $word" }',
        "    }",
        '    $words = switch -Wildcard -CaseSensitive ("$path $($given[-1])") {',
        *values,
        "    }",
        "    if (-not $words) {",
        "        $words = switch ($path) {",
        *(f"    {case}" for case in cases),
        "        }",
        "    }",
        '    $words | Where-Object { $_ -like "$wordToComplete*" } | ForEach-Object {',
        "        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"
