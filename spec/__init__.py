"""The ABI specifications, as YAML data. No Python logic lives here."""
