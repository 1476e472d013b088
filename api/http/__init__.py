"""HTTP: routes, who may call, bodies, and answers as fal words them."""
