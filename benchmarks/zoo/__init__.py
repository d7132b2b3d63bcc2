"""Teachers that we did not write: exports of other packages, made in environments of their own, and their reading.

`transformers_export` writes a folder of exports; `reading` reads it in the project's environment.
"""
