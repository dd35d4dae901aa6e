"""The demonstration: the whole product on one machine, every promise checked, nothing simulated but the hardware."""
