"""The life of a router process: start one, find one that runs, end it, and keep it as a service."""
