"""Naming what a picture shows, and how far the answer can be trusted."""
