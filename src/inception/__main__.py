"""`python -m inception`: the command line."""

from inception.cli.main import main

if __name__ == "__main__":
    main()
