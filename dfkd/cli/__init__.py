"""The command line. Its modules import the service and the science only inside the functions that need them."""
