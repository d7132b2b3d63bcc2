"""The command line: `dfkd …`. Commands import the service and the science when they are called."""
