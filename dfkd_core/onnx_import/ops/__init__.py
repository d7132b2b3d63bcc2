"""Shape and dtype rules of the ONNX operators that the importer takes, one file for each kind of operator."""
