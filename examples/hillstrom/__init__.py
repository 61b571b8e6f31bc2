"""A public experiment: 64,000 customers, two mailed arms and a control, and what they did in the two weeks after."""
