"""Parts of the methods: the base class of synthesizers, persistent generators, optimised images, and loss terms."""
