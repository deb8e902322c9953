"""The kinds of adapters, and the layers of those that peft has no form for that the runtimes read."""
