"""Render the parts of Dynamo that are the same for every engine: environment, services, frontends."""
