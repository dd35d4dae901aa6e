"""Recipes: passes with parameters, and what the search may vary in them. Read `recipe.py` first."""
