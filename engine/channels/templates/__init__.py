"""Message templates: Liquid under limits, its filters, locales, dates and numbers, and what a template sees."""
