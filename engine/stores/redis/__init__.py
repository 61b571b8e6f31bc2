"""What the broker's Redis holds beside the queues: the list that wakes the clock."""
