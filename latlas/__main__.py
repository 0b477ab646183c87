"""``python -m latlas`` is the command ``latlas``."""

from latlas.cli.__main__ import main

if __name__ == "__main__":
    main()
