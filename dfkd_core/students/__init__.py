"""Students: the catalogue (torch-free). One file per family; one layer description both counts and builds."""
