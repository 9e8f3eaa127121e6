"""Recipes: what is trained, with which settings."""
