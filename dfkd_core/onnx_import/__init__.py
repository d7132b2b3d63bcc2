"""An ONNX file, read, checked, normalised and reduced to a plan. No PyTorch; only `wire` and `plan` need neither onnx.

wire (counts what the file declares, before any parser) → model (parses, refuses) → normal (eval mode, cut softmax)
→ specialize (folds constants and shape arithmetic) → plan (what is left: pure image arithmetic).
"""
