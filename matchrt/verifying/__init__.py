"""Whether an engine gives the matches of another one, on real pairs."""
