"""What commands do to campaigns: apply, launch, pause, cancel, replay, and wait until nothing is pending."""
