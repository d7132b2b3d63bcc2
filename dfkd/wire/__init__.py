"""Models of what the API takes and sends: the server writes them, the client reads them. They need only pydantic."""
