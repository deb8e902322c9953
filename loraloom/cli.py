"""The command line (being built)."""


def main() -> int:
    return 0
