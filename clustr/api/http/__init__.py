"""What all resources share: errors, middleware, entity tags, JSON, URLs, kinds of fields."""
