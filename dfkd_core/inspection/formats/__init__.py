"""The formats of files (torch-free): how a format is recognised, which are refused, and what their first bytes hold."""
