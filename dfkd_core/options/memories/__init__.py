"""The options of memories (torch-free). One file each; the file's name is the memory's name in the spec."""
