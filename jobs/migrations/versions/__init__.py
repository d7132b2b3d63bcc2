"""The scripts; their order is in `down_revision`. A script never changes once it was released."""
