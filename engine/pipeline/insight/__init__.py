"""What commands tell: plans, reports, previews, explanations, statistics, index advice, and who is alive."""
