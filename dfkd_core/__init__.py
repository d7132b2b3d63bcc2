"""The science: a trained teacher and a configuration in, a small student out, without any data.

Knows no HTTP, SQL, queue or environment. The modules marked torch-free in their docstring may be imported by the
ledger and the service; everything else needs PyTorch.
"""

__version__ = "0.1.0"
