"""The runner: the child process that distils, and the protocol between it and its supervisor."""
