"""The frames between the kept ones, made from their restyled neighbours and the source's motion."""
