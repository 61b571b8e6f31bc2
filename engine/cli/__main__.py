"""`python -m engine.cli` is `tidegate`."""

from engine.cli.main import main

main()
