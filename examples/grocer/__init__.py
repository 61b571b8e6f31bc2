"""A real grocer's year: 2,469 households, 155,762 baskets, 27 list campaigns and four continuous ones."""
