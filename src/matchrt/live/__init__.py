"""Video: every frame of a camera, file, folder or stream matched to a keyframe."""
