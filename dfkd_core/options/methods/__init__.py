"""The options of methods (torch-free). One file per paper; the file's name is the method's name in the spec."""
