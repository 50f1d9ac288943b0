"""Adapt Dynamo's mock engines: step times of the simulator, a model folder without weights."""
