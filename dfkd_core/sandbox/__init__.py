"""The sandbox: where a process runs that reads an untrusted file. Torch-free.

A sandboxed process has no network, no secrets, and at most one directory that it can write to. `policy` says what such
a process finds, `detect` finds out which kind of sandbox works on this host, `launch` starts a command in one.
"""
