"""Pictures, charts, and the page that shows them."""
