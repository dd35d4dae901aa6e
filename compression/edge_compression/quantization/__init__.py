"""Arithmetic of quantizing: calibration, weights, rounding, sensitivity. Used by passes; imports none of them."""
