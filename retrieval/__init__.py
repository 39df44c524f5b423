"""Encoders, image reading, queries, answers and evaluation."""
