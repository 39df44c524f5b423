"""Completion: the script of each shell, run by that shell where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# what is typed, of which the last word is completed -> what must be offered
ASKED = {"retr ind": "index", "retr query --index INDEX --one-per la": "label"}
# a function that completes, defined once by what the command prints
RUNS = {
    "bash": """
        eval "$(retr completion bash)"
        complete -p retr >/dev/null || exit 1
        complete_it() {
            COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _retr_completion retr
            printf '%s\\n' "${COMPREPLY[@]}"
        }
    """,
    "zsh": """
        autoload -Uz compinit; compinit -u -D
        eval "$(retr completion zsh)"
        [[ ${_comps[retr]} == _retr_completion ]] || exit 1
        # takes what it is offered in place of a line that is edited
        _arguments() { print -r -- "$@" }
        complete_it() { words=(${=1}); CURRENT=${#words}; _retr_completion }
    """,
    "fish": """
        retr completion fish | source
        function complete_it; complete -C $argv[1]; end
    """,
    "pwsh": """
        retr completion powershell | Out-String | Invoke-Expression
        function complete_it([string]$line) {
            (TabExpansion2 -inputScript $line -cursorColumn $line.Length).CompletionMatches.CompletionText
        }
    """,
}
QUIET = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"], "pwsh": ["-NoProfile"]}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A folder with the command, in front of the others."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "retr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m retr "$@"\n')
    (folder / "retr").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


@pytest.mark.parametrize("shell", RUNS)
def test_a_shell_completes(shell, environment, hrf_index):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    asked = [f"complete_it '{words.replace('INDEX', str(hrf_index))}'\necho ---" for words in ASKED]
    script = RUNS[shell] + "\n".join(asked)
    done = subprocess.run([shell, *QUIET[shell], "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done
    answers = done.stdout.split("---")
    for answer, offered in zip(answers, ASKED.values(), strict=False):
        assert offered in answer
        assert "calibrate" not in answer


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_script_asks_this_command(retr, shell):
    script = retr("completion", shell).out
    assert "_RETR_COMPLETE" in script
    assert f"complete_{shell}" in script
    assert "PSReadLine" not in script


def test_powershell_is_answered_as_its_script_asks(environment):
    asked = {"_RETR_COMPLETE": "complete_powershell", "_TYPER_COMPLETE_ARGS": "retr query --devi"}
    asked["_TYPER_COMPLETE_WORD_TO_COMPLETE"] = "--devi"
    done = subprocess.run(["retr"], capture_output=True, text=True, env=environment | asked, check=True)
    assert done.stdout.splitlines()[0].startswith("--device:::Where to compute")


def test_another_shell_is_refused(retr):
    assert "no completion for the shell 'tcsh'; give bash, zsh, fish, powershell" in retr("completion", "tcsh").error(2)


def test_what_cannot_be_found_out_is_not_offered(environment, tmp_path):
    (tmp_path / "retr.toml").write_text("nonsense")
    asked = {"_RETR_COMPLETE": "complete_bash", "COMP_WORDS": "retr query --one-per la", "COMP_CWORD": "3"}
    done = subprocess.run(["retr"], capture_output=True, text=True, env=environment | asked, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
