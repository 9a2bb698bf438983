"""`python -m unmask …`, and `torchrun … -m unmask …`: the command line."""

from unmask.cli import main

main()
