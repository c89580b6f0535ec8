"""What people look at: one self-contained page per participant and one per group."""
