"""The menu of methods and memories (torch-free): one file of options for each, found by `registry`."""
