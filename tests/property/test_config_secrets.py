"""Values from outside the rules file: variables, .env, key files, key commands."""
