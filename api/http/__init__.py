"""HTTP: routes, access checks, request bodies, and answers in fal's format."""
