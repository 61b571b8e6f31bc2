"""Local services and the Procfile supervisor."""
