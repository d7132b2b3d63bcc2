"""Representations of an ONNX file: the byte scan that runs before a parser, the parsed model, its nodes, the plan."""
