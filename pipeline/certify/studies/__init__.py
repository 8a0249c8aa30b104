"""Tables of the small-network papers (tools/small_networks.py): read, compared, never certified."""
