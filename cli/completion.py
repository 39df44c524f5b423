"""``retr completion``: the script with which a shell completes commands, options and their values."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from retr.index.errors import UsageError

SHELLS = ("bash", "zsh", "fish", "powershell")


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")],
) -> None:
    """Print what makes a shell complete the words of a command.

    Names of commands, options, encoders, devices, and the columns of the index at hand. In bash:
    eval "$(retr completion bash)" in ~/.bashrc. In zsh: the same with zsh in ~/.zshrc, after compinit. In fish: retr
    completion fish > ~/.config/fish/completions/retr.fish. In PowerShell: retr completion powershell | Out-String |
    Invoke-Expression in the file that $PROFILE names.

    Example: retr completion bash
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in SHELLS:
        raise UsageError(f"no completion for the shell {shell!r}", hint=f"give {', '.join(SHELLS)}")
    script = get_completion_script(prog_name="retr", complete_var="_RETR_COMPLETE", shell=shell)
    if shell == "powershell":
        # what Tab does elsewhere is not ours to change
        script = "\n".join(line for line in script.splitlines() if "PSReadLine" not in line)
    sys.stdout.write(f"{script.strip()}\n")
