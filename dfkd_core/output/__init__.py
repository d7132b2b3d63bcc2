"""What a run delivers: the ONNX student, its evaluation, and the provenance of both."""
