"""Selection strategies, one module each, of one signature."""
