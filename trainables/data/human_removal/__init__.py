"""A folder of videos in, human-free videos out (HAT's idea, with inpainting that uses time)."""
