"""Teachers that we did not write: exports of other packages, made in environments of their own, and their reading.

`shelf` says what an exporter leaves and gives it its command line; `torch_ways` exports any PyTorch network. Each
module *_export exports the nets of one package; `reading` reads a folder of exports in the project's environment.
"""
