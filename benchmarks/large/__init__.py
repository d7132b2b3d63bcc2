"""Large teachers: what their jobs take, and how good their students are."""
