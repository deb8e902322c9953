"""The commands of `loraloom`: every module beside this one is one, so dropping a file in is enough.

A command has HELP (one line), and one of
    add_parser(subparsers)      ordinary subcommands; the parser's default `run` is a function (arguments) -> exit code
    run(argv) -> exit code      Hydra jobs, which read KEY=VALUE themselves
and NAME where the file cannot be called so. Every command is imported to answer `loraloom --help`: nothing heavy at the top.
"""
