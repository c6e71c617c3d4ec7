"""Search without a database: the terms of texts, and the language of queries."""
