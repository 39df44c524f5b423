"""Sets of rows that people name, label and hand on, with the questions that found them."""
