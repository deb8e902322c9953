"""Registered models put where other tools look for them: links, and converted copies where a tool does not read a form."""
