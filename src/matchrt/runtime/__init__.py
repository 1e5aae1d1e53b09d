"""From engine to matches: images, sessions, the Matcher, Matches and their uses. Imports no torch, no onnx."""
