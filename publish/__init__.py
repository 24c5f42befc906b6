"""What the specifications are turned into for other people: tables, vectors, manual, C and Rust."""
