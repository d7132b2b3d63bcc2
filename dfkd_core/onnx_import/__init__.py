"""The ONNX importer: it reads, checks and normalises an ONNX file and reduces it to a `Plan`, without PyTorch.

The stages run in this order:
- `ir.protobuf_scan` counts what the file declares before a parser allocates memory (needs no onnx);
- `ir.parse` parses the file and refuses what is not a plain graph;
- `canonicalize` puts the graph into eval mode and cuts a final softmax;
- `specialize` folds constants and shape arithmetic;
- `assemble` builds the `Plan` (`ir.plan`, needs no onnx): the operations on images that are left.
"""
