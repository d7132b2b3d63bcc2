"""What the API sends: wire models made from ledger values, responses, the menu, OpenAPI and its examples."""
