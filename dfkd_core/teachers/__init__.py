"""Teachers: one file per format, each giving a frozen `Teacher`."""
