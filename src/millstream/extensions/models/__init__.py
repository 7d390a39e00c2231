"""Models by way of other libraries."""
