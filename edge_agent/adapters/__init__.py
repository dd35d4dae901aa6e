"""What acts: sockets, files, sensors, the signed-update client. Each implements a seam the core decides over."""
