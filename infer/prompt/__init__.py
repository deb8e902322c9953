"""Prompts as people type them: the grammars of A1111 and ComfyUI, read into weighted pieces and schedules."""
