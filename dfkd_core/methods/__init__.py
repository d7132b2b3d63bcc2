"""Methods: ways to synthesize images from a teacher. One file per paper; the file's name is the name on the wire."""
