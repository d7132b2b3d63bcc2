"""Pictures drawn by rule: each kind is drawn by one function, in a file of its own."""
