"""Disk: the service's folder and database, and what is kept how long."""
