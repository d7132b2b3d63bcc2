"""What goes out: views of ledger values, responses, conditional requests, the menu, OpenAPI and examples."""
