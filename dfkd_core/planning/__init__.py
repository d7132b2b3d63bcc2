"""Planning (torch-free): the work of a run, predicted from its spec and the facts of teacher and student."""
