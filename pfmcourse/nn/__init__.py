"""What models are made of: blocks that several systems share, one idea a file."""
