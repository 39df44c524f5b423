"""Measured claims: one module a claim, each prints and writes the figures the README quotes."""
