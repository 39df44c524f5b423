"""Evaluation protocols of the five published systems, each with a strict variant.

One file a system. Each holds the published numbers that are known (a cell that is not known stays empty)
and never mixes them with what a run measured.
"""
