"""What an answer must be: compiled from a schema, an expression or a grammar, and followed token by token."""
