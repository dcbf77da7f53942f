"""`python -m cloister`: the command line, where its script is not on the path."""

from cloister._cli import main

main()
