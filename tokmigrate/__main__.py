"""`python -m tokmigrate`: the command line."""

from tokmigrate.cli.app import main

if __name__ == "__main__":
    main()
