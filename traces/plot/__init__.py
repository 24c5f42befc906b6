"""Pictures of a replay as SVG, drawn by hand: small, readable in the light and in the dark, with no library."""
