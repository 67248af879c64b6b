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


def _words(command: Command) -> list[str]:
    """What may follow: names of subcommands (of shells, for `completion`) and of all flags, those of the
    commands above included."""
    names = list(SHELLS) if command.name == "completion" else sorted(sub.name for sub in command.commands)
    return [*names, *sorted({f"--{flag.name}" for flag in command.all_flags()})]


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
    lines = [f"# fish completion for {name}"]
    for path, command in _commands(root):
        above = path.split()
        subs = " ".join(sorted(sub.name for sub in command.commands))
        seen = [f"__fish_seen_subcommand_from {word}" for word in above] or ["true"]
        here = "; and ".join([*seen, *([f"not __fish_seen_subcommand_from {subs}"] if subs else [])])
        for sub in sorted(command.commands, key=lambda each: each.name):
            lines.append(f"complete -c {name} -n '{here}' -a {sub.name} -d {_fish_quoted(sub.short)}")
        for flag in sorted(command.flags + command.persistent, key=lambda each: each.name):
            short = f" -s {flag.shorthand}" if flag.shorthand else ""
            value = "" if flag.kind == "bool" else " -r"
            if flag.choices:
                value = f" -x -a {_fish_quoted(' '.join(flag.choices))}"
            lines.append(
                f"complete -c {name} -n '{'; and '.join(seen)}' -l {flag.name}{short}{value}"
                f" -d {_fish_quoted(flag.usage)}"
            )
    return "\n".join(lines) + "\n"


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
        "    $path = ''",
        "    foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {",
        '        if ($paths -contains "$path $element") { $path = "$path $element" }',
        "    }",
        "    $given = @($commandAst.CommandElements | ForEach-Object { $_.ToString() })",
        "    $previous = if ($wordToComplete) { $given[-2] } else { $given[-1] }",
        '    $words = switch -Wildcard -CaseSensitive ("$path $previous") {',
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
