"""The decisions of the engine, all pure: facts in, a decision out. They read no store and no clock."""
