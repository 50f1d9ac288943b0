"""Render the parts of Dynamo that every engine has behind it: environment, services, frontends."""
