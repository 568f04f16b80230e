"""What the router costs, beside bare mitmdump and going there directly: `just bench`."""
