"""Recipes: thin programs that connect the parts into a full study. `python -m twore.recipes.NAME --help`."""
