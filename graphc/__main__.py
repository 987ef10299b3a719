"""`python -m graphc` is the command line."""

from graphc.cli import main

main()
