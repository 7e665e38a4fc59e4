"""How well whole objects, hidden parts included, are found."""
