"""Does the engine keep what the plan claims? Attacked from outside, through the code that clients run."""
