"""Student families, one file each (torch-free). A name, a width and an input shape give a layer description."""

from dfkd_core.architectures.catalogue import ARCHITECTURES, catalogue, describe

__all__ = ["ARCHITECTURES", "catalogue", "describe"]
