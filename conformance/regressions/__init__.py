"""The regression collection: one YAML file per ABI, read by `hvabi.conformance.stories`, and what was left out."""
