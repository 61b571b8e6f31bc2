"""Drawings of `engine.domain.system_view.SystemView`: one arrangement, and SVG, Mermaid, tables and JSON made of it."""
