"""Write, read and judge the logs of MLPerf LoadGen by its own rules."""
