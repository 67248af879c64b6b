"""Completion scripts, made from the tree of commands.

The scripts are static: they hold the names of all commands and flags, so that completing a word starts no
Python. A word that is no command or flag is left to the shell, which offers file names.
"""

from __future__ import annotations

from pyetcd.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    """What may follow: names of subcommands and of all flags, those of the commands above included."""
    names = sorted(sub.name for sub in command.commands)
    return [*names, *sorted({f"--{flag.name}" for flag in command.all_flags()})]


def _walk(root: Command, step: str) -> list[str]:
    """`case` branches that follow the commands on the line: `step` shows how to go on to a path."""
    return [f'            "{path}") {step.format(path)} ;;' for path, _ in _commands(root) if path]


def _bash(root: Command) -> str:
    name = root.name
    function = f"_{name}_complete"
    lines = [
        f"# bash completion for {name}",
        f"{function}() {{",
        '    local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" i',
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        case "$path ${COMP_WORDS[i]}" in',
        *_walk(root, 'path="{}"'),
        "        esac",
        "    done",
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
        '    local where="" i',
        "    local -a candidates",
        "    for ((i = 2; i < CURRENT; i++)); do",
        '        case "$where ${words[i]}" in',
        *_walk(root, 'where="{}"'),
        "        esac",
        "    done",
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
    lines = [
        f"# PowerShell completion for {name}",
        f"Register-ArgumentCompleter -Native -CommandName '{name}' -ScriptBlock {{",
        "    param($wordToComplete, $commandAst, $cursorPosition)",
        f"    $paths = @({paths})",
        "    $path = ''",
        "    foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {",
        '        if ($paths -contains "$path $element") { $path = "$path $element" }',
        "    }",
        "    $words = switch ($path) {",
        *cases,
        "    }",
        '    $words | Where-Object { $_ -like "$wordToComplete*" } | ForEach-Object {',
        "        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"
