"""Prompts made more exact before they are encoded, as DALL-E 3 does it: by rules, or by a language model on this machine."""
