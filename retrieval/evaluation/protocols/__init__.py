"""How the five published systems were evaluated: the published protocol beside a strict one.

One file a system. Each holds the published numbers that are known (a cell that is not known stays empty)
and never mixes them with what a run measured.
"""
