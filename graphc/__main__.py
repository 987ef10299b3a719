"""`python -m graphc` is the command line."""

from graphc.command_line.cli import main

main()
