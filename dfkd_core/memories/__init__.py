"""Memories: ways to replay the past. One file each; the file's name is the name on the wire."""
