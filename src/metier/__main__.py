"""`python -m metier`."""

from metier.cli.main import main

main()
