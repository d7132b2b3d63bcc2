"""The results of a run: the ONNX student, its evaluation, and the provenance of both."""
