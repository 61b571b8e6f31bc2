"""The pages of `tidegate web`: the whole installation in a browser, and the acts of people who may operate it."""
