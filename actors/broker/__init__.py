"""The Redis broker as Dramatiq sees it: client, consumer, ids of processes, and what `tidegate queue` asks."""
