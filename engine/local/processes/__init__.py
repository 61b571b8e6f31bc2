"""The processes of the Procfile: their supervisor, forked children, and the guard that ends them if it dies."""
