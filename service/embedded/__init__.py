"""`dfkd up`: API, worker and a private Redis of one machine, started and supervised by one command."""
