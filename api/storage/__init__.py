"""The disk: the service's folder and database, and the checks for a full disk."""
