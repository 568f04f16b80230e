"""The way of a request through the house: what the addon's hooks do, one module for each stretch of it."""
