"""The box (torch-free): where a process runs that reads a stranger's file. No network, no secrets, nothing to write to.

`plan` says what a process finds in it, `launch` starts it, `probe` finds out which kind works here.
"""
