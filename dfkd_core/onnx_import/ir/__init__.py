"""An ONNX file as values of our own: the byte scan before any parser, the parsed model, its nodes and the plan."""
