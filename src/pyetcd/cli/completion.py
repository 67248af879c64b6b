"""The command `completion`, which prints a script that teaches a shell the program's commands and flags."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Command, exactly_one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyetcd.cli.command import Invocation

SHELLS = ("bash", "zsh", "fish", "powershell")


def completion_command(program: str, run: Callable[[Invocation], None], group: str = "") -> Command:
    return Command(
        f"completion [{'|'.join(SHELLS)}]",
        "Print a completion script for a shell",
        run,
        long="""Print a script with which a shell completes this program's commands and flags.

bash, for this session:        $ source <(PROGRAM completion bash)
bash, for all sessions:        $ PROGRAM completion bash > /etc/bash_completion.d/PROGRAM
zsh, where compinit is on:     $ PROGRAM completion zsh > "${fpath[1]}/_PROGRAM"
fish:                          $ PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish
PowerShell, for this session:  PS> PROGRAM completion powershell | Out-String | Invoke-Expression
""".replace("PROGRAM", program),
        group=group,
        check=_a_known_shell,
        flags_in_use=False,
    )


def _a_known_shell(command: Command, args: list[str]) -> None:
    exactly_one(command, args)
    if args[0] not in SHELLS:
        raise ArgumentError(f"invalid argument {gotext.quote(args[0])} for {gotext.quote(command.path)}")
