"""Drive a deployment with MLPerf LoadGen and record every request."""
