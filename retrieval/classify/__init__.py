"""Classification of pictures, and its calibration."""
