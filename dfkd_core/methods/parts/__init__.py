"""What the methods are made of: the synthesizer's two verbs, generators, images that are optimised, loss terms."""
