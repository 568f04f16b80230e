"""Other protocols behind one interface: what a provider is sent, and what its answer becomes."""
