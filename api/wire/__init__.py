"""fal's formats: inputs, problems and their answers."""
