"""What runs on the device, and how it lies there: mesh, layouts, compiled programs."""
