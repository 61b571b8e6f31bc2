"""The application: `app` (what commands use) over `workers` (what works by itself) over `runtime` (stores, clocks)."""
