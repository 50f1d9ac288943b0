"""Offer the function that Dynamo calls, under the name by which it imports it."""

from .llm_args import update_llm_args_with_extra_options

__all__ = ["update_llm_args_with_extra_options"]
