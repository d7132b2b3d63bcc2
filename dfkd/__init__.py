"""The public package: the typed client, the command line, and the models of what the API takes and sends."""
