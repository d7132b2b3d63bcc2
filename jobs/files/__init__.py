"""The files of jobs: teachers and artifacts under their sha256, in a directory or in a bucket."""
