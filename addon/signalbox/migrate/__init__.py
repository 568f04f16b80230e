"""Other routers' configurations, turned into rules.yaml and `.env`: one module for each family."""
