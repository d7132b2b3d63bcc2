"""The runner: the child process that distils, and the protocol that it speaks with its supervisor."""
