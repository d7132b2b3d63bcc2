"""The job's specification (torch-free): its models, presets, overrides and pointers into its JSON."""
