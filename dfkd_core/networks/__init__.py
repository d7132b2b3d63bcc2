"""Networks and what is computed with them: the teacher, generators, losses, BatchNorm statistics, precision."""
