"""`python -m dfkd`: the command line, the same as `dfkd`."""

from dfkd.cli.main import main

if __name__ == "__main__":
    main()
